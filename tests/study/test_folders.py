"""A store keeps its promises wherever it lies: written in one step, held by one run, refused in words."""

import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import yaml
from click.testing import CliRunner
from small_study import CONTENT, small_study

from wdlg.cli import main
from wdlg.errors import InputError
from wdlg.study import folders
from wdlg.study.folders import LOCK, Elsewhere, Folder, InUseError
from wdlg.study.runner import run, status
from wdlg.study.schema import LABEL, SET_ASIDE
from wdlg.study.store import State, Store

STUDY = small_study(parts={"labels": CONTENT["parts"]["labels"], "rates": CONTENT["parts"]["rates"]})


@pytest.fixture
def address(monkeypatch):
    """Of a folder in memory, of this test alone, whose lock is free after a moment."""
    monkeypatch.setattr(folders, "LEASE", 0.5)
    return f"memory://{uuid.uuid4().hex}/records"


@pytest.fixture(params=["folder", "elsewhere"])
def files(request, tmp_path, address):
    return Folder(tmp_path / "records") if request.param == "folder" else Elsewhere(address)


def test_files_are_written_read_moved_and_removed_by_their_names(files):
    one, other = Path("main", "a b.parquet"), Path("set-aside", "main", "a b.parquet")
    assert files.is_folder() is None
    assert files.names() == []
    files.write(one, b"first")
    before = files.version(one)
    assert (files.is_folder(), files.exists(one), files.exists(other)) == (True, True, False)
    files.write(one, b"second!")
    assert files.read(one) == b"second!"
    assert files.version(one) != before
    files.move(one, other)
    assert files.names() == [other]
    files.remove(other)
    files.remove(other)
    assert files.names() == []
    with pytest.raises(FileNotFoundError):
        files.read(one)
    with pytest.raises(FileNotFoundError):
        files.version(one)


def test_one_run_holds_a_place_and_gives_it_back(files):
    with files.held(), pytest.raises(InUseError), files.held():
        pass
    with files.held():
        pass


def test_the_same_place_is_the_same_value_and_goes_to_other_processes(files):
    again = pickle.loads(pickle.dumps(files))
    assert again == files
    assert hash(again) == hash(files)


# Elsewhere


def test_a_study_is_computed_resumed_and_judged_in_an_object_store(address, tmp_path):
    store, local = Store(address), Store(tmp_path / "local")
    run(STUDY, local, processes=1)
    assert run(STUDY, store, processes=1) == []
    for cell in STUDY.cells:
        assert store.state(cell) is State.DONE
        assert (
            store.read(cell)
            .drop(columns="seconds", errors="ignore")
            .equals(local.read(cell).drop(columns="seconds", errors="ignore"))
            or cell.kind == "labels"
        )  # whose columns are times as well
    bad = STUDY.cells[1]
    store.files.write(bad.path, store.files.read(bad.path)[:-9])
    (remark,) = run(STUDY, store, processes=1)
    assert "cannot be read: set aside" in remark
    assert store.state(bad) is State.DONE
    names = {path.as_posix() for path in store.files.names()}
    assert names == {cell.path.as_posix() for cell in STUDY.cells} | {
        LABEL,
        f"{SET_ASIDE}/{bad.path.as_posix()}",
    }
    rows, remarks = status(STUDY, store)
    assert (sum(row.done for row in rows), remarks) == (len(STUDY.cells), [])
    with pytest.raises(InputError, match="the store of the study 'small' and not of 'other'"):
        run(small_study(name="other"), store)


def test_what_a_killed_run_left_elsewhere_is_taken_over_after_a_while(address):
    files = Elsewhere(address)
    files.write(Path(LOCK), b'{"run": "killed", "beat": 4}')
    files.write(Path(".run-killed"), b"")
    assert run(STUDY, Store(address), processes=1) == []
    assert not [path for path in files.names() if path.name.startswith(".")]


def test_a_lock_that_is_renewed_is_not_taken_over_and_one_that_was_lost_is_not_given_back(
    address, monkeypatch
):
    files = Elsewhere(address)
    with files.held():
        ended = threading.Event()
        ended.wait(3 * folders.LEASE)  # long after it would be free, had nobody renewed it
        with pytest.raises(InUseError), files.held():
            pass
        other = b'{"run": "another", "beat": 0}'
        files.write(Path(LOCK), other)
        ended.wait(folders.LEASE)
        assert files.read(Path(LOCK)) == other
    assert files.read(Path(LOCK)) == other


def test_of_two_that_begin_at_once_one_is_refused(address):
    entered = []

    def hold(_):
        try:
            with Elsewhere(address).held():
                entered.append(1)
                threading.Event().wait(2 * folders.LEASE)
        except InUseError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(hold, range(2))) == [False, True]
    assert entered == [1]


def test_a_worker_in_another_process_does_not_see_this_ones_memory(address):
    with pytest.raises(InputError, match=r"^--store is 'memory://.* the run is not seen there"):
        run(STUDY, Store(address), processes=2)


class Refuses(fsspec.AbstractFileSystem):
    """An object store that lets nobody in, with an error of its own."""

    protocol = "s3"

    def _no(self, *_, **__):
        raise RuntimeError("AccessDenied: 403\nand much more")

    cat_file = pipe_file = info = find = exists = isfile = _no


def test_what_an_object_store_refuses_is_one_sentence(monkeypatch):
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda _: (Refuses(), "bucket/x"))
    store = Store("s3://bucket/x")
    for use in (lambda: run(STUDY, store), lambda: status(STUDY, store), lambda: store.state(STUDY.cells[0])):
        with pytest.raises(
            InputError, match=r"cannot be read \(RuntimeError: AccessDenied: 403\).$"
        ) as caught:
            use()
        assert str(caught.value).startswith("--store is 's3://bucket/x', but")


@pytest.mark.parametrize(
    "address", ["ftp://host/x", "file:///x", "http://host/x", "s3://", "memory:///", "://x"]
)
def test_an_address_of_no_object_store_is_refused(address, tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONTENT))
    for command in ("run", "status", "audit", "report", "rates"):
        answer = CliRunner().invoke(
            main, ["study", command, str(tmp_path / "small.yaml"), "--store", address]
        )
        assert answer.exit_code == 2, answer.output
        assert answer.stderr.startswith(
            f"wdlg: --store is '{address}', but must be a folder, or an address such as"
        )
        assert answer.stderr.count("\n") == 1


def test_what_speaks_a_protocol_and_is_not_installed_is_named_with_its_command(monkeypatch):
    def missing(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(
        InputError, match=r"^--store is 's3://bucket/x', but for that s3fs must be installed: pip install"
    ):
        Store("s3://bucket/x")


# On this machine


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def none(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

    monkeypatch.setattr(folders.FileLock, "acquire", none)
    with pytest.raises(
        InputError, match=r"^--store is .* cannot be written to \(its file system has no locks"
    ):
        run(STUDY, Store(tmp_path / "store"))
