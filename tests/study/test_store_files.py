"""What is in the files of a store, and which files those are: facts that need no attack to be run."""

import hashlib
import json
import os
import platform
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_study import small_study

from wdlg.errors import InputError
from wdlg.study import store as stores
from wdlg.study.schema import LABEL, SCHEMA, SET_ASIDE
from wdlg.study.store import LOCK, METADATA_KEY, State, Store, as_frame, digest_of_schema_1, provenance

STUDY = small_study()
CELL, OTHER = STUDY.cells[:2]
RECORDS = pd.DataFrame({"attack": [0, 1], "mse": [0.5, None], "note": ["a", None]})


@pytest.fixture
def store(tmp_path):
    """With the records of one cell."""
    kept = Store(tmp_path / "store")
    kept.write(CELL, RECORDS, wall_seconds=1.23456, sample="of the images")
    return kept


def test_a_record_says_all_that_decides_it_and_its_digest_is_that_of_the_file(store):
    metadata = store.metadata(CELL)
    assert metadata["schema"] == SCHEMA
    assert metadata["settings"] == json.loads(json.dumps(CELL.settings()))
    assert (metadata["sample"], metadata["wall_seconds"]) == ("of the images", 1.235)
    assert {name: metadata[name] for name in provenance()} == provenance()
    content = (store.folder / CELL.path).read_bytes()
    blank = content.replace(metadata["digest"].encode(), stores.NO_DIGEST.encode())
    assert metadata["digest"] == hashlib.sha256(blank).hexdigest()
    held = store.held(CELL)
    assert held.cell is CELL
    assert held.sha256 == hashlib.sha256(content).hexdigest()
    assert held.table().schema.metadata is None


def test_the_provenance_names_versions_the_device_and_the_commit():
    found = provenance()
    libraries = ("wdlg", "torch", "numpy", "scipy", "POT")
    assert list(found) == [*libraries, "python", "device", "revision"]
    assert {name: found[name] for name in libraries} == {name: version(name) for name in libraries}
    assert found["python"] == platform.python_version()
    assert found["device"] == f"cpu ({platform.machine()})"


def test_the_revision_says_whether_the_package_differs_from_its_commit(monkeypatch):
    commands, answers = [], {"rev-parse": "c0ffee\n", "status": ""}

    class Ended:
        def __init__(self, stdout):
            self.stdout = stdout

    def git(command, **settings):
        commands.append(command)
        assert settings == {"capture_output": True, "text": True, "check": True}
        return Ended(answers[command[3]])

    monkeypatch.setattr(stores.subprocess, "run", git)
    assert stores._revision() == "c0ffee"
    package = str(Path(stores.__file__).resolve().parent.parent)
    assert commands == [
        ["git", "-C", package, "rev-parse", "HEAD"],
        ["git", "-C", package, "status", "--porcelain", "."],
    ]
    answers["status"] = " M engine.py\n"
    assert stores._revision() == "c0ffee+changes"
    for error in (FileNotFoundError("git"), stores.subprocess.CalledProcessError(128, "git")):

        def fails(*_, error=error, **__):
            raise error

        monkeypatch.setattr(stores.subprocess, "run", fails)
        assert stores._revision() == "not in a checkout"


def test_records_come_back_with_their_columns_in_front_and_nothing_for_what_is_missing(store):
    store.write(OTHER, pd.DataFrame({"attack": [2], "extra": [7]}), wall_seconds=1, sample="")
    one = store.read(CELL)
    columns = list(CELL.columns())
    assert list(one) == [*columns, "attack", "mse", "note"]
    for name, value in CELL.columns().items():
        assert one[name].tolist() == [value] * 2
    both = store.read_all([CELL, OTHER, *STUDY.cells[2:]])
    assert both["attack"].tolist() == [0, 1, 2]
    assert list(both) == [*columns, "attack", "mse", "note", "extra"]
    for name in ("mse", "note", "extra"):
        absent = [value for value in both[name] if pd.isna(value)]
        assert absent
        assert all(isinstance(value, float) for value in absent)
    assert store.held(CELL).table(["mse"]).column_names == ["mse"]
    assert as_frame([]).empty
    assert store.read(STUDY.cells[2]).empty


def test_a_file_may_be_read_by_all_and_written_by_its_owner(store):
    mode = stat.S_IMODE(os.stat(store.folder / CELL.path).st_mode)
    assert mode == 0o644


def test_strangers_are_files_of_no_cell_and_no_part_of_the_stores_own(store):
    for name in ("notes.txt", "main/other.parquet", f"{SET_ASIDE}/old.parquet", LABEL, LOCK, "main/.a.part",
                 "a.part", ".hidden"):  # fmt: skip
        (store.folder / name).parent.mkdir(exist_ok=True)
        (store.folder / name).write_text("")
    assert [path.as_posix() for path in store.strangers(STUDY.cells)] == [
        ".hidden", "a.part", "main/other.parquet", "notes.txt",
    ]  # fmt: skip
    assert CELL.path in store.strangers([OTHER])


def test_what_is_set_aside_is_numbered_from_one(store):
    names = []
    for content in ("first", "second", "third"):
        (store.folder / "a").mkdir(exist_ok=True)
        (store.folder / "a" / "b.txt").write_text(content)
        names.append(store.set_aside(Path("a", "b.txt")).relative_to(store.folder).as_posix())
    assert names == [f"{SET_ASIDE}/a/b.txt", f"{SET_ASIDE}/a/b.txt.1", f"{SET_ASIDE}/a/b.txt.2"]
    assert not (store.folder / "a" / "b.txt").exists()
    with pytest.raises(InputError, match="^--store is .*cannot be written to"):
        store.set_aside(Path("a", "b.txt"))


def test_a_run_signs_the_store_clears_what_was_half_written_and_leaves_all_else(store):
    (store.folder / "main" / ".x.part").write_text("half")
    (store.folder / "main" / "x.part").write_text("a file of this name that is not hidden")
    with store.taken(STUDY):
        assert not (store.folder / "main" / ".x.part").exists()
        assert (store.folder / "main" / "x.part").exists()
        with (
            pytest.raises(InputError, match="^--store is .*another run is computing there"),
            store.taken(STUDY),
        ):
            pass
    label = (store.folder / LABEL).read_bytes()
    assert label.endswith(b"\n")
    assert json.loads(label) == {"study": "small", "schema": SCHEMA, "verified": {}}
    with store.taken(STUDY):  # the lock was given back
        assert (store.folder / LABEL).read_bytes() == label
    with pytest.raises(InputError, match="^--store is .*the store of the study 'small' and not of 'another'"):
        store.require_of(small_study(name="another"))


def test_who_has_patience_gets_the_store_when_the_other_run_gives_it_back(store):
    order = []

    def wait():
        with store.taken(STUDY, patience=60):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with store.taken(STUDY):
            second = pool.submit(wait)
            with pytest.raises(TimeoutError):
                second.result(timeout=3 * stores.PAUSE)
            order.append("first")
        second.result(timeout=30)
    assert order == ["first", "second"]


def test_patience_ends(store):
    with store.taken(STUDY):
        started = time.monotonic()
        with (
            pytest.raises(InputError, match="^--store is .*another run is computing there"),
            store.taken(STUDY, patience=2 * stores.PAUSE),
        ):
            pass
        assert time.monotonic() - started >= 2 * stores.PAUSE


def as_schema_1(store, cell):
    """Its file as the first version wrote it, without a schema number and with the older digest."""
    path = store.folder / cell.path
    table = pq.read_table(path).replace_schema_metadata(None)
    settings = store.metadata(cell)["settings"]
    metadata = {"settings": settings, "digest": digest_of_schema_1(table, settings)}
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), path)
    return path


def test_a_file_of_the_first_schema_is_verified_once_and_known_by_its_content_after(store, monkeypatch):
    path = as_schema_1(store, CELL)
    assert store.state(CELL) is State.DONE
    store.require_of(STUDY)  # known by its records
    with store.taken(STUDY):
        pass
    verified = json.loads((store.folder / LABEL).read_bytes())["verified"]
    assert verified == {CELL.path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()}
    monkeypatch.setattr(stores, "digest_of_schema_1", lambda *_: "another")
    assert store.held(CELL).state is State.DONE
    assert store.held(CELL, in_full=True).state is State.CHANGED


def test_the_first_schemas_digest_is_of_settings_names_and_values():
    table = pa.table({"a": [1, 2], "b": [b"\xff", None]})
    text = '{"x": 1, "y": 2}\na:[1, 2]\nb:["ff", null]'
    assert digest_of_schema_1(table, {"y": 2, "x": 1}) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "label",
    [{}, {"schema": SCHEMA}, {"schema": SCHEMA + 1, "study": "small", "verified": {}}, [], {"schema": "2"},
     {"schema": SCHEMA, "study": "small", "verified": 1}],
)  # fmt: skip
def test_a_label_of_another_form_is_refused(store, label):
    (store.folder / LABEL).write_text(json.dumps(label))
    for use in (lambda: store.held(CELL), lambda: store.require_of(STUDY)):
        with pytest.raises(InputError, match=f"^--store is .*its {LABEL} must be readable"):
            use()


def test_a_folder_is_the_stores_or_empty_or_refused(tmp_path):
    Store(tmp_path / "nothing").require_of(STUDY)
    Store(tmp_path).require_of(STUDY)
    (tmp_path / LOCK).write_text("")
    Store(tmp_path).require_of(STUDY)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="^--store is .*it holds other files"):
        Store(tmp_path).require_of(STUDY)
    with pytest.raises(InputError, match="^--store is .*notes.txt', but must be a folder"):
        Store(tmp_path / "notes.txt").require_of(STUDY)
    assert Store(tmp_path / "notes.txt").state(CELL) is State.MISSING


def test_a_record_that_is_a_folder_is_corrupt_and_one_that_cannot_be_read_is_refused(store, monkeypatch):
    (store.folder / OTHER.path).mkdir(parents=True)
    assert store.state(OTHER) is State.CORRUPT

    def forbidden(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(InputError, match=r"^--store is .*, but cannot be read \(Permission denied\)"):
        store.held(CELL)


def test_a_file_that_is_being_written_has_a_name_by_which_the_next_run_knows_it(store, monkeypatch):
    seen = []
    monkeypatch.setattr(stores.os, "fsync", lambda _: seen.extend(store.folder.rglob(".*.part")))
    store.write(CELL, RECORDS, wall_seconds=1, sample="")
    assert len(seen) == 1
    assert seen[0].parent == (store.folder / CELL.path).parent
    assert list(store.folder.rglob(".*.part")) == []


def test_a_store_is_named_by_a_path_or_its_text(tmp_path):
    assert Store(str(tmp_path)) == Store(tmp_path)
    with pytest.raises(InputError, match="^folder is 5, but must be the name of a folder"):
        Store(5)
