"""A record is complete or not there; a killed run resumes; what is not a good record is set aside."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from small_study import CONTENT, small_study

from wdlg import data
from wdlg.errors import InputError
from wdlg.losses import Wasserstein
from wdlg.networks import LeNet
from wdlg.optimizers import LBFGS
from wdlg.study import runner, specification
from wdlg.study.audit import audit
from wdlg.study.runner import compute, run, status
from wdlg.study.schema import LABEL, SET_ASIDE
from wdlg.study.specification import load
from wdlg.study.store import METADATA_KEY, State, Store, provenance

ROOT = Path(__file__).parents[2]

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


# Settings


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
        (specification.Design, "activation", "tanh"),
        (specification.Optimised, "stop_loss", 1e-7),
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
        monkeypatch.setattr(specification, name, value)
    assert store.state(cell) is State.FOREIGN


def test_the_settings_of_label_cells_hold_rules_and_precision(monkeypatch):
    [cell] = small_study().part("labels")
    settings = cell.settings()
    assert settings["rules"] == ("bias_sign", "row_sum")
    assert (settings["dtype"], settings["network"]["bound"]) == ("float32", 0.5)


# The digest


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
        audit(specification.Study("paper", (cell,)), store, attacks=1)


# Whose store


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


# Two runs, and what a system refuses


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


def start(folder, content, *arguments):
    """`wdlg study run` on a study, its records in the folder, as the head of a group of processes."""
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    command = [str(Path(sys.executable).with_name("wdlg")), "study", "run", str(folder / "study.yaml")]
    return subprocess.Popen(
        [*command, "--store", str(folder / "store"), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)


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


SLOW = {"name": "gradient_descent", "learning_rate": 1e-5}
ENDLESS = {
    **CONTENT,
    "attacks": {"iDLG": {"label_rule": "row_sum", "stop_loss": 1e-30, "optimizer": SLOW}},
    "parts": {
        "first": {**CONTENT["parts"]["main"], "attacks": ["iDLG"], "networks": 2, "evaluations": 1},
        "main": {**CONTENT["parts"]["main"], "attacks": ["iDLG"], "evaluations": 10**6},
    },
}


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
