"""A record is complete or not there; a killed run resumes; what is not a good record is set aside."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from small_study import CONTENT, small_study

from wdlg.errors import InputError
from wdlg.study.runner import compute, run, status
from wdlg.study.store import METADATA_KEY, SET_ASIDE, State, Store, provenance

TIMES = ["seconds"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with all records of the small study."""
    store = Store(tmp_path_factory.mktemp("filled"))
    assert run(small_study(), store, processes=1) == []
    return store


@pytest.fixture
def copy(filled, tmp_path):
    """The same, to spoil."""
    for path in filled.folder.rglob("*.parquet"):
        target = tmp_path / "store" / path.relative_to(filled.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return Store(tmp_path / "store")


def same(first, second):
    pd.testing.assert_frame_equal(first.drop(columns=TIMES), second.drop(columns=TIMES))


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


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def spoil_text(path):
    path.write_text("not a record")


def spoil_value(path):
    table = pq.read_table(path)
    values = table.column("mse").to_pylist()
    values[0] = 1e-9
    changed = table.set_column(table.column_names.index("mse"), "mse", [values])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


def spoil_settings(path):
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    metadata["settings"]["attack"]["evaluations"] = 41
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()}), path)


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (spoil_cut, State.CORRUPT),
        (spoil_text, State.CORRUPT),
        (spoil_value, State.CHANGED),
        (spoil_settings, State.CHANGED),
    ],
)
def test_a_spoiled_record_is_seen_set_aside_and_computed_again(copy, filled, spoil, state):
    study = small_study()
    cell = study.part("main")[1]
    spoil(copy.folder / cell.path)
    assert copy.state(cell) is state
    assert any(str(cell.path) in remark for remark in status(study, copy)[1])
    (remark,) = run(study, copy, processes=1)
    assert state.value in remark
    assert (copy.folder / SET_ASIDE / cell.path).exists()
    same(copy.read(cell), filled.read(cell))


def test_records_of_other_settings_are_foreign(copy):
    changed = small_study(seed=4)
    assert copy.state(changed.part("main")[0]) is State.FOREIGN
    smaller = small_study(parts={"main": CONTENT["parts"]["main"]})
    remarks = run(smaller, copy, processes=1)
    assert len(remarks) == 3  # two rates and one cell of labels are of no cell of the smaller study
    assert all("is of no cell of this study" in remark for remark in remarks)
    assert smaller.cells[0].path.exists() is False  # paths are relative to the store
    assert copy.state(smaller.cells[0]) is State.DONE


def test_nothing_is_half_written(tmp_path, monkeypatch):
    store, cell = Store(tmp_path), small_study().cells[0]

    def full_disk(*arguments, **settings):
        raise OSError("no space left")

    monkeypatch.setattr("wdlg.study.store.pq.write_table", full_disk)
    with pytest.raises(OSError, match="no space left"):
        store.write(cell, pd.DataFrame({"a": [1]}), wall_seconds=1.0, sample="")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_data_set_is_reported_and_the_rest_computed(tmp_path):
    parts = {"main": {**CONTENT["parts"]["main"], "datasets": ["mnist", "digits"], "networks": 1}}
    study = small_study(parts=parts)
    remarks = run(study, Store(tmp_path / "store"), data_dir=tmp_path, processes=1)
    assert remarks == ["mnist is missing: its cells are left out (wdlg data fetch mnist)."]
    states = [Store(tmp_path / "store").state(cell) for cell in study.cells]
    assert states == [State.MISSING, State.MISSING, State.DONE, State.DONE]


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(InputError, match="^--part is 'mian', but must be one of labels, main, rates"):
        run(small_study(), Store(tmp_path), parts=["mian"])


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_a_run_that_is_killed_resumes_with_the_records_of_an_unbroken_one(tmp_path, filled):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    store = Store(tmp_path / "store")
    command = [str(Path(sys.executable).with_name("wdlg")), "study", "run", str(tmp_path / "small.yaml")]
    process = subprocess.Popen(
        [*command, "--store", str(store.folder), "--processes", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(store.folder.rglob("*.parquet")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    study = small_study()
    done = [cell for cell in study.cells if store.state(cell) is State.DONE]
    assert 0 < len(done) < len(study.cells)
    run(study, store, processes=1)
    assert not list(store.folder.rglob("*.part"))
    for cell in study.cells:
        same(store.read(cell), filled.read(cell))
