"""What README and pages say of records and measurements is what these hold."""

import json
from pathlib import Path

import pandas as pd

from wdlg.study.specification import load
from wdlg.study.store import State, Store
from wdlg.verdicts.comparison import compare_all, pooled
from wdlg.verdicts.ledger import from_store
from wdlg.verdicts.readings import comparisons

ROOT = Path(__file__).parents[1]


def test_the_readme_quotes_the_latest_measurements():
    readme = (ROOT / "README.md").read_text()
    goals = json.loads((ROOT / "benchmarks" / "latest.json").read_text())
    rows = [
        f"| {goal['name']} | {goal['ratio']:.3g} | {bound(goal)} {goal['at_least']:g} | `{goal['command']}` |"
        for goal in goals
    ]
    assert [row for row in rows if row not in readme] == []


def bound(goal):
    return "at most" if goal["smaller_is_better"] else "at least"


def test_the_page_on_many_machines_has_the_costs_of_the_records_and_of_the_latest_measurement():
    page = (ROOT / "book" / "many-machines.md").read_text()
    study, store = load(ROOT / "studies" / "paper.yaml"), Store(ROOT / "results" / "paper")
    seconds, sizes = {}, []
    for cell in study.part("main"):
        if cell.attack.name in ("DLG", "iDLG", "WDLG"):
            kind = (cell.dataset, cell.attack.name)
            seconds.setdefault(kind, []).append(store.metadata(cell)["wall_seconds"] / cell.attacks)
            sizes.append((store.folder / cell.path).stat().st_size)
    means = {kind: sum(values) / len(values) for kind, values in seconds.items()}
    mean = sum(means.values()) / len(means)
    assert len(means) == 15
    assert f"took {mean:.1f} s of one core an attack in the mean" in page
    assert (
        f"from {means['mnist', 'iDLG']:.2f} s (iDLG on MNIST) to {means['lfw', 'WDLG']:.0f} s (WDLG" in page
    )
    assert f"a file of {sum(sizes) / len(sizes) / 1000:.0f} kB" in page
    assert f"{1e6 * mean / 3600:,.0f}"[:3] in page  # rounded to hundreds of hours
    assert f"{1e6 * mean / 3200 / 60:.0f} min" in page
    measured = json.loads((ROOT / "benchmarks" / "cluster.json").read_text())
    empty, files = measured["100000 empty cells, Dask"], measured["100000 files"]
    for part, says in (("scheduler", "Scheduler"), ("runner", "The run itself")):
        spent = empty[f"processor milliseconds a cell of the {part}"]
        assert f"| {says} | {spent:.1f} ms of its processor |" in page
    assert f"| Memory of the scheduler | {1e3 * empty['more MB of the scheduler'] / 20_000:.0f} kB" in page
    assert f"| Memory of the run | {1e3 * empty['more MB of the runner'] / 100_000:.0f} kB" in page
    assert f"{files['milliseconds to write']:.1f} ms to write with `fsync`" in page
    assert f"{files['milliseconds to check']:.1f} ms to check" in page


def test_the_readme_has_the_verdicts_of_the_records():
    readme = (ROOT / "README.md").read_text()
    study = load(ROOT / "studies" / "paper.yaml")
    entries = from_store(study, Store(ROOT / "results" / "paper"), command="")
    for entry in entries:
        condition = f": {entry.result.condition}" if entry.result.condition else ""
        assert f"| {entry.claim} | **{entry.result.verdict}**{condition} |" in readme, entry.id
        assert (ROOT / f"{entry.figure}.ipynb").exists()
    gains = next(entry for entry in entries if entry.id == "strongest-loss").result.numbers
    for score in ("success", "calm"):
        assert "{mean:+.2f} [{low:.2f}, {high:.2f}]".format(**gains[score]["all"]) in readme
    second = Store(ROOT / "results" / "paper").read_all(study.part("second") + study.part("second-lfw"))
    for opponent in ("iDLG", "iDLG tuned"):
        assert pooled(second, "success", "Second", opponent).text() in readme


def test_committed_records_are_whole_and_of_their_studies():
    for name in sorted(path.name for path in (ROOT / "results").iterdir() if path.is_dir()):
        study = load(ROOT / "studies" / f"{name}.yaml")
        store = Store(ROOT / "results" / name)
        states = {store.held(cell, in_full=True).state for cell in study.cells}
        assert states <= {State.DONE, State.MISSING}
        store.require_of(study)
        assert store.strangers(study.cells) == []
    assert sum(path.stat().st_size for path in (ROOT / "results").rglob("*.parquet")) < 40e6


def test_the_readme_says_what_the_closed_form_reached_with_relu():
    rows = json.loads((ROOT / "benchmarks" / "exact.json").read_text())
    relu = {row["dataset"]: row for row in rows if row["activation"] == "relu"}
    text = " ".join((ROOT / "README.md").read_text().split())
    grey = relu["mnist"]
    assert f"{grey['below 1e-6']} of {grey['images']} images of MNIST to an MSE below 1e-6, and none" in text
    for name in ("svhn", "cifar100", "lfw"):
        assert relu[name]["below 1e-6"] == 0
    assert sum(row["converged and not below 1e-4"] for row in rows) == 0
    assert all(row["below 1e-4"] == row["images"] for row in rows if row["activation"] == "sigmoid")


def test_the_readme_says_what_second_order_reached():
    study = load(ROOT / "studies" / "accelerated.yaml")
    runs = Store(ROOT / "results" / "accelerated").read_all(study.part("grey") + study.part("colour"))
    text = " ".join((ROOT / "README.md").read_text().split())
    steps = runs.groupby("dataset")["iterations"].median()
    assert len(steps) == 5
    assert f"{(runs['mse'] < 1e-6).sum()} of {len(runs)} images of the five data sets" in text
    assert f"in {steps.min():g} to {steps.max():g} iterations (medians of the data sets)" in text


def test_the_readme_says_what_came_back_from_trained_networks():
    rows = pd.DataFrame(json.loads((ROOT / "benchmarks" / "trained.json").read_text()))
    recovered = rows.assign(recovered=rows["mse"] < 1e-4).groupby("part")["recovered"].agg(["sum", "size"])
    text = " ".join((ROOT / "README.md").read_text().split())
    told = {part: f"{won} of {of}" for part, (won, of) in recovered.iterrows()}
    assert f"{told['LM tanh']} images come back by second order, and {told['exact tanh']} by the" in text
    assert f"from ReLU networks {told['LM relu']} and {told['exact relu']}" in text
    wrong = rows[(rows["method"] == "exact") & (rows["status"] == "converged") & (rows["mse"] > 1e-4)]
    assert wrong.empty
    assert rows["accuracy"].min() >= 0.9


def test_what_is_said_of_transport_on_relu_holds_in_the_records():
    """README, front page, chapter 4.5 and report say it in words, of records that are complete."""
    study, store = load(ROOT / "studies" / "networks.yaml"), Store(ROOT / "results" / "networks")
    cells = study.part("relu-grey-lbfgs")
    found = {(one.dataset, one.reading): one for one in comparisons(cells, store)}
    assert all(one.runs == 100 for one in found.values())
    table = store.read_all(cells)
    for name in ("mnist", "fashion_mnist"):
        assert found[name, "rows, eps 0.1, unrolled"].verdict == "ties"
        assert found[name, "rows, eps 0.1 absolute"].successes == 0
    for score in ("mse", "success", "steadiness"):
        family = compare_all(table, score, "rows, eps 0.1, unrolled", ["DLG", "squared (iDLG)"])
        better = {key for key, one in family.items() if one.significant and one.mean > 0}
        assert better == {("mnist", "DLG")}
        assert not any(one.significant and one.mean < 0 for one in family.values())
