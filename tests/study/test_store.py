"""A record is complete or not there; what is not a good record is set aside, and what is no store refused."""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from small_study import CONTENT, contents, same, small_study

from wdlg.attacks import Optimised
from wdlg.errors import InputError
from wdlg.losses import Wasserstein
from wdlg.networks import LeNet
from wdlg.optimizers import LBFGS
from wdlg.study import Design, cells
from wdlg.study.audit import audit
from wdlg.study.runner import run, status
from wdlg.study.schema import LABEL, SET_ASIDE
from wdlg.study.specification import load
from wdlg.study.store import METADATA_KEY, State, Store

ROOT = Path(__file__).parents[2]


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


def full_disk(*arguments, **settings):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_nothing_is_half_written_and_a_sentence_says_so(tmp_path, monkeypatch):
    store, cell = Store(tmp_path), small_study().cells[0]
    monkeypatch.setattr("wdlg.study.store.os.fsync", full_disk)
    with pytest.raises(InputError, match=r"^--store is .*cannot be written to \(No space left on device\)"):
        store.write(cell, pd.DataFrame({"a": [1]}), wall_seconds=1.0, sample="")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_while_a_record_is_written_the_old_one_is_there_and_whole(copy, monkeypatch):
    cell = small_study().part("main")[0]
    old = (copy.folder / cell.path).read_bytes()
    seen = []

    def look(handle):
        seen.append((copy.folder / cell.path).read_bytes())
        full_disk()

    monkeypatch.setattr("wdlg.study.store.os.fsync", look)
    with pytest.raises(InputError):
        copy.write(cell, pd.DataFrame({"mse": [1.0]}), wall_seconds=1.0, sample="")
    assert seen == [old]
    assert (copy.folder / cell.path).read_bytes() == old


def test_who_reads_a_record_while_it_is_replaced_reads_the_old_one_to_its_end(copy):
    cell = small_study().part("main")[0]
    old = (copy.folder / cell.path).read_bytes()
    with (copy.folder / cell.path).open("rb") as reader:
        begin = reader.read(10)
        copy.write(cell, pd.DataFrame({"mse": [1.0]}), wall_seconds=1.0, sample="")
        assert begin + reader.read() == old
    assert len(copy.read(cell)) == 1


def test_what_was_set_aside_before_is_not_overwritten(copy):
    path = small_study().part("main")[0].path
    contents = [b"first", b"second", b"third"]
    moved = []
    for content in contents:
        (copy.folder / path).write_bytes(content)
        moved.append(copy.set_aside(path))
    assert [target.read_bytes() for target in moved] == contents


def with_default(monkeypatch, kind, name, value):
    """Give a setting of a dataclass another default."""
    known = list(kind.__dataclass_fields__)
    positional = [one for one in known if not kind.__dataclass_fields__[one].kw_only]
    if name in positional:
        defaults = list(kind.__init__.__defaults__)
        defaults[positional.index(name) - len(positional)] = value
        monkeypatch.setattr(kind.__init__, "__defaults__", tuple(defaults))
    else:
        monkeypatch.setattr(kind.__init__, "__kwdefaults__", {**kind.__init__.__kwdefaults__, name: value})
    monkeypatch.setattr(kind.__dataclass_fields__[name], "default", value)


def committed():
    """A cell of WDLG in the committed records, which are of schema 1, and their store."""
    cells = load(ROOT / "studies/paper.yaml").part("main")
    return next(cell for cell in cells if is_wdlg(cell)), Store(ROOT / "results/paper")


def is_wdlg(cell):
    return cell.kind == "attack" and cell.attack.name == "WDLG"


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Wasserstein, "eps", 0.2),
        (Wasserstein, "mass", "one"),
        (LBFGS, "history", 50),
        (Design, "activation", "tanh"),
        (Optimised, "stop_loss", 1e-7),
    ],
)
def test_records_of_an_old_default_are_foreign_to_the_new_one(filled, monkeypatch, kind, name, value):
    content = {**CONTENT, "attacks": {**CONTENT["attacks"]}}
    content["attacks"]["WDLG"] = {"label_rule": "bias_sign", "loss": {"name": "wasserstein"}}
    del content["name"]
    store = Store(filled.folder.parent / f"{kind.__name__}-{name}")
    before = next(cell for cell in small_study(**content).cells if is_wdlg(cell))
    store.write(before, pd.DataFrame({"mse": [1.0]}), wall_seconds=1.0, sample="")
    old, kept = committed()
    assert store.state(before) is State.DONE
    assert kept.state(old) is State.DONE
    with_default(monkeypatch, kind, name, value)
    after = next(cell for cell in small_study(**content).cells if is_wdlg(cell))
    assert after.path == before.path
    assert store.state(after) is State.FOREIGN
    assert kept.state(committed()[0]) is State.FOREIGN


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRACE_POINTS", 81),
        ("PICTURE_ITERATIONS", (1,)),
        ("PICTURE_NETWORKS", 5),
        ("DIVERGENCE", 1e5),
        ("EXPLOSION", 11.0),
        ("SUCCESS_THRESHOLDS", (1e-2,)),
        ("DEVELOPMENT_EVERY", 4),
        ("STREAMS", {"network": 1}),
        ("channels", 11),
        ("strides", (2, 1, 1)),
    ],
)
def test_records_of_another_constant_of_the_code_are_foreign(monkeypatch, name, value):
    cell, store = committed()
    assert store.state(cell) is State.DONE
    if name in LeNet.constants:
        monkeypatch.setattr(LeNet, "constants", {**LeNet.constants, name: value})
    else:
        monkeypatch.setattr(cells, name, value)
    assert store.state(cell) is State.FOREIGN


def test_the_settings_of_label_cells_hold_rules_and_precision(monkeypatch):
    [cell] = small_study().part("labels")
    settings = cell.settings()
    assert settings["rules"] == ("bias_sign", "row_sum")
    assert (settings["dtype"], settings["network"]["bound"]) == ("float32", 0.5)


def spoil_provenance(path):
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    metadata["revision"] = "another"
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()}), path)


def spoil_one_byte_of_the_provenance(path):
    content = path.read_bytes()
    assert content.count(b'"device": "cpu') == 1
    path.write_bytes(content.replace(b'"device": "cpu', b'"device": "gpu'))


@pytest.mark.parametrize("spoil", [spoil_provenance, spoil_one_byte_of_the_provenance])
def test_the_digest_is_of_the_provenance_too(copy, spoil):
    cell = small_study().part("main")[0]
    spoil(copy.folder / cell.path)
    assert copy.state(cell) is State.CHANGED


@pytest.fixture
def some_committed(tmp_path):
    """The committed records of one part, to spoil: of schema 1, and remembered as verified."""
    shutil.copytree(ROOT / "results/paper/rates-lbfgs", tmp_path / "paper/rates-lbfgs")
    shutil.copy(ROOT / "results/paper" / LABEL, tmp_path / "paper")
    return load(ROOT / "studies/paper.yaml").part("rates-lbfgs")[0], Store(tmp_path / "paper")


def test_a_file_that_was_verified_and_then_changed_by_hand_is_found(some_committed):
    cell, store = some_committed
    assert store.state(cell) is State.DONE
    spoil_value(store.folder / cell.path)
    assert store.state(cell) is State.CHANGED


def test_an_audit_does_not_believe_what_the_store_remembers(some_committed, monkeypatch):
    cell, store = some_committed
    spoil_value(store.folder / cell.path)
    label = json.loads((store.folder / LABEL).read_text())
    forged = hashlib.sha256((store.folder / cell.path).read_bytes()).hexdigest()
    label["verified"][cell.path.as_posix()] = forged
    (store.folder / LABEL).write_text(json.dumps(label))
    assert store.state(cell) is State.DONE
    monkeypatch.setattr("wdlg.study.audit.data.is_present", lambda *_: True)
    with pytest.raises(InputError, match="must hold attacks of the study"):
        audit(cells.Study("paper", (cell,)), store, attacks=1)


def test_the_store_of_another_study_is_refused_and_left_alone(copy):
    run(small_study(), copy, processes=1)
    before = contents(copy.folder)
    other = small_study(name="other")
    for use in (run, status):
        with pytest.raises(
            InputError, match=r"^--store is .* the store of the study 'small' and not of 'other'"
        ):
            use(other, copy)
    with pytest.raises(InputError, match="of the study 'small'"):
        audit(other, copy, attacks=1)
    assert contents(copy.folder) == before


@pytest.mark.parametrize("place", ["", "results"])
def test_a_folder_of_other_files_is_no_store(tmp_path, place):
    folder = tmp_path / "a"
    (folder / place / "paper" / "main").mkdir(parents=True)
    (folder / place / "paper" / "main" / "network-000.parquet").write_bytes(b"of another study")
    before = contents(folder)
    for use in (run, status):
        with pytest.raises(InputError, match=r"^--store is .* it holds other files"):
            use(small_study(), Store(folder))
    assert contents(folder) == before


def test_a_store_that_does_not_say_whose_it_is_is_known_by_its_records(copy):
    assert not (copy.folder / LABEL).exists()
    assert run(small_study(), copy, processes=1) == []
    assert json.loads((copy.folder / LABEL).read_text())["study"] == "small"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"study": "small"}', '{"study": "small", "schema": 99, "verified": {}}']
)
def test_a_store_of_a_later_version_or_with_a_broken_label_is_refused(copy, text):
    (copy.folder / LABEL).write_text(text)
    with pytest.raises(InputError, match=r"its store.json must be readable, and of no later version"):
        run(small_study(), copy)


def test_a_second_run_on_a_store_is_refused_and_readers_are_not(copy, tmp_path):
    study = small_study()
    with Store(copy.folder).taken(study):
        (copy.folder / "main" / ".half.part").write_bytes(b"of the first run")
        before = contents(copy.folder)
        with pytest.raises(InputError, match=r"^--store is .*, but another run is computing there"):
            run(study, copy)
        rows, remarks = status(study, copy)
        assert contents(copy.folder) == before
    assert sum(row.done for row in rows) == len(study.cells)
    assert remarks == []  # what the first run is writing is no stranger
    assert run(study, copy, processes=1) == []
    assert not list(copy.folder.rglob("*.part"))


@pytest.mark.parametrize("beneath", ["", "deeper"])
def test_a_store_that_is_a_file_is_refused(tmp_path, beneath):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(InputError, match=r"^--store is .*(must be a folder|cannot be written to)"):
        run(small_study(), Store(tmp_path / "store" / beneath))
    assert (tmp_path / "store").read_text() == "a file"


def test_a_file_that_may_not_be_read_is_refused_and_stays_where_it_is(copy, monkeypatch):
    def no_permission(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    before = contents(copy.folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", no_permission)
        with pytest.raises(InputError, match=r"^--store is .* cannot be read \(Permission denied\)"):
            run(small_study(), copy)
    assert before.items() <= contents(copy.folder).items()


def test_a_folder_in_the_place_of_a_record_is_set_aside(copy, filled):
    study = small_study(parts={"labels": CONTENT["parts"]["labels"]})
    [cell] = study.cells
    shutil.rmtree(copy.folder / "main")
    shutil.rmtree(copy.folder / "rates")
    (copy.folder / LABEL).write_text('{"study": "small", "schema": 2, "verified": {}}')
    (copy.folder / cell.path).unlink()
    (copy.folder / cell.path).mkdir()
    (remark,) = run(study, copy, processes=1)
    assert "cannot be read: set aside" in remark
    assert copy.state(cell) is State.DONE
