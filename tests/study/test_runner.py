"""What a run computes and stores; a killed run resumes."""

import os
import signal
from contextlib import suppress

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from small_study import CONTENT, contents, same, small_study
from started import start, wait_until

from wdlg import data
from wdlg.errors import InputError
from wdlg.study import runner, specification
from wdlg.study.runner import compute, run, status
from wdlg.study.store import State, Store, provenance


def test_every_cell_is_stored_with_settings_and_provenance(filled):
    for cell in small_study().cells:
        assert filled.state(cell) is State.DONE
        metadata = filled.metadata(cell)
        assert metadata["settings"]["dataset"] == "digits"
        for name in ("torch", "numpy", "python", "device", "revision", "sample", "wall_seconds"):
            assert metadata[name]


def test_the_revision_is_that_of_the_code_that_computed_not_of_a_later_commit(tmp_path, digits, monkeypatch):
    commits = iter(["computed here", "committed while it ran"])
    monkeypatch.setattr("wdlg.study.store._revision", lambda: next(commits))
    provenance.cache_clear()
    cell = small_study().part("main")[0]
    records = compute(cell, digits, only=[0])
    assert next(commits) == "committed while it ran"
    store = Store(tmp_path)
    store.write(cell, records, wall_seconds=1.0, sample=digits.digest())
    provenance.cache_clear()
    assert store.metadata(cell)["revision"] == "computed here"


def test_records_are_those_of_the_attack(filled, digits):
    cell = small_study().part("main")[0]
    stored = filled.read(cell)
    again = compute(cell, digits)
    same(stored[again.columns], again)
    assert set(stored["method"]) == {cell.attack.name}
    for _, row in stored.iterrows():
        assert row["trace_evaluation"][-1] + 1 == row["evaluations"]
        assert row["trace_mse"][-1] == pytest.approx(row["mse"], rel=1e-5)
        assert row["trace_loss"][-1] == pytest.approx(row["loss"], rel=1e-5)


def test_a_part_may_keep_short_traces_and_no_pictures(digits):
    whole = small_study().part("main")[0]
    content = {
        **CONTENT,
        "parts": {"main": {**CONTENT["parts"]["main"], "trace_points": 5, "pictures": False}},
    }
    short = specification.from_mapping(content).part("main")[0]
    every, few = (compute(cell, digits) for cell in (whole, short))
    assert any(every["pictures"])
    assert not any(few["pictures"])
    assert max(map(len, few["trace_mse"])) == 5
    for long, row in zip(every.to_dict("records"), few.to_dict("records"), strict=True):
        kept = np.isin(long["trace_evaluation"], row["trace_evaluation"])
        assert [row["trace_evaluation"][0], row["trace_evaluation"][-1]] == [0, row["evaluations"] - 1]
        if kept.sum() == len(row["trace_evaluation"]):
            assert np.array_equal(long["trace_mse"][kept], row["trace_mse"], equal_nan=True)
    traces = [name for name in every if name.startswith("trace_")]
    same(every.drop(columns=["pictures", *traces]), few.drop(columns=["pictures", *traces]))
    kept = short.settings()["recorded"]
    assert (kept["trace_points"], kept["picture_networks"]) == (5, 0)
    assert whole.settings()["recorded"] != kept


@pytest.mark.parametrize(("key", "value"), [("trace_points", 1), ("trace_points", "all"), ("pictures", 0)])
def test_what_a_part_keeps_is_a_count_and_a_flag(key, value):
    content = {**CONTENT, "parts": {"main": {**CONTENT["parts"]["main"], key: value}}}
    with pytest.raises(InputError, match=f"^parts.main.{key} is .*, but must be"):
        specification.from_mapping(content)


def test_a_second_run_computes_nothing(filled):
    before = {path: path.stat().st_mtime_ns for path in filled.folder.rglob("*.parquet")}
    run(small_study(), filled, processes=1)
    assert {path: path.stat().st_mtime_ns for path in filled.folder.rglob("*.parquet")} == before


def test_status_counts_what_is_there_and_guesses_the_time_left(copy):
    study = small_study()
    (copy.folder / study.part("main")[0].path).unlink()
    rows, remarks = status(study, copy)
    by_group = {row.group: row for row in rows}
    row = by_group["main", "digits", "iDLG"]
    assert (row.done, row.cells, row.attacks) == (2, 3, 4)
    assert row.seconds_left > 0
    assert by_group["main", "digits", "WDLG"].seconds_left == 0
    assert remarks == []
    nothing, _ = status(study, Store(copy.folder / "nothing"))
    assert all(row.seconds_left is None for row in nothing)


def test_a_cell_is_computed_with_one_thread_and_the_number_is_put_back(digits, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "_attack", lambda *_: seen.append(torch.get_num_threads()) or pd.DataFrame())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compute(small_study().part("main")[0], digits)
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_missing_data_set_is_reported_and_the_rest_computed(tmp_path):
    parts = {"main": {**CONTENT["parts"]["main"], "datasets": ["mnist", "digits"], "networks": 1}}
    study = small_study(parts=parts)
    remarks = run(study, Store(tmp_path / "store"), data_dir=tmp_path, processes=1)
    assert remarks == ["mnist is missing: its cells are left out (wdlg data fetch mnist)."]
    states = [Store(tmp_path / "store").state(cell) for cell in study.cells]
    assert states == [State.MISSING, State.MISSING, State.DONE, State.DONE]


@pytest.mark.parametrize("damage", ["cut", "content"])
def test_a_sample_file_that_cannot_be_read_is_refused_before_anything_is_set_aside(tmp_path, copy, damage):
    stream = np.random.default_rng(0)
    images = stream.integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    texts = {"split": np.full(20, "test"), "source": np.full(20, "s")}
    sample = data.Sample("mnist", images, np.arange(20) % 10, (), 10, **texts)
    path = tmp_path / "data" / "mnist.npz"
    data.write_sample(sample, path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2  # within the images, which are most of the file; its end lists what it holds
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content[:middle] if damage == "cut" else content)
    parts = {"main": {**CONTENT["parts"]["main"], "datasets": ["mnist", "digits"]}}
    before = contents(copy.folder)
    with pytest.raises(InputError, match=f"^sample file {path} cannot be read"):
        run(small_study(parts=parts), copy, data_dir=tmp_path / "data", processes=1)
    assert contents(copy.folder) == before


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(InputError, match="^--part is 'mian', but must be one of labels, main, rates"):
        run(small_study(), Store(tmp_path), parts=["mian"])


SLOW = {"name": "gradient_descent", "learning_rate": 1e-5}


ENDLESS = {
    **CONTENT,
    "attacks": {"iDLG": {"label_rule": "row_sum", "stop_loss": 1e-30, "optimizer": SLOW}},
    "parts": {
        "first": {**CONTENT["parts"]["main"], "attacks": ["iDLG"], "networks": 2, "evaluations": 1},
        "main": {**CONTENT["parts"]["main"], "attacks": ["iDLG"], "evaluations": 10**6},
    },
}


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_a_run_that_is_killed_resumes_with_the_records_of_an_unbroken_one(tmp_path, filled):
    store = Store(tmp_path / "store")
    process = start(tmp_path, CONTENT, "--processes", "1")
    wait_until(lambda: list(store.folder.rglob("*.parquet")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    study = small_study()
    done = [cell for cell in study.cells if store.state(cell) is State.DONE]
    assert 0 < len(done) < len(study.cells)
    run(study, store, processes=1)
    assert not list(store.folder.rglob("*.part"))
    for cell in study.cells:
        same(store.read(cell), filled.read(cell))


@pytest.mark.skipif(os.name != "posix", reason="these are POSIX signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["terminated", "killed"]
)
def test_whatever_ends_a_run_its_workers_end_with_it_and_the_store_is_whole(tmp_path, number, code):
    store, study = Store(tmp_path / "store"), small_study(**ENDLESS)
    process = start(tmp_path, ENDLESS, "--processes", "2")
    try:
        # The first two cells take no time, the next minutes: when those are stored, these are computed.
        wait_until(lambda: len(list(store.folder.rglob("*.parquet"))) == 2, process)
        family = psutil.Process(process.pid).children(recursive=True)
        assert sum("LokyProcess" in " ".join(one.cmdline()) for one in family) == 2
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert "Traceback" not in errors
        assert psutil.wait_procs(family, timeout=20)[1] == []
        states = [store.state(cell) for cell in study.cells]
        assert sorted(states, key=lambda state: state.name) == [State.DONE] * 2 + [State.MISSING] * 3
        with store.taken(study):  # the lock went with the run
            assert not list(store.folder.rglob("*.part"))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
