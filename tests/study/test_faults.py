"""Whatever is killed, filled or corrupted at whatever moment: nothing is lost, doubled or half-written.

These take minutes, and are no part of the short suite: `make faults`.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from small_study import CONTENT, small_study

from wdlg.study.runner import run
from wdlg.study.schema import LABEL, SET_ASIDE
from wdlg.study.store import LOCK, State, Store

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("faults"),
    pytest.mark.skipif(os.name != "posix", reason="these are POSIX signals"),
]

MOMENTS = int(os.environ.get("WDLG_FAULTS", "50"))
"""Random moments at which something is killed."""

SEED = int(os.environ.get("WDLG_FAULTS_SEED", "0"))

LARGER = {**CONTENT, "parts": {**CONTENT["parts"], "main": {**CONTENT["parts"]["main"], "networks": 40}}}
STUDY = small_study(**LARGER)
WDLG = str(Path(sys.executable).with_name("wdlg"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The records of a run that nothing disturbed."""
    store = Store(tmp_path_factory.mktemp("unbroken"))
    assert run(STUDY, store, processes=1) == []
    return store


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(LARGER, sort_keys=False))
    return path


@contextmanager
def started(study_file, folder, *arguments, **settings):
    """`wdlg study run`, as the head of a group of processes that does not outlive this."""
    process = subprocess.Popen(
        [WDLG, "study", "run", str(study_file), "--store", str(folder), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **settings,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def workers_of(process):
    try:
        family = psutil.Process(process.pid).children(recursive=True)
        marks = ("LokyProcess", "multiprocessing.spawn import spawn_main")
        return [one for one in family if any(mark in " ".join(one.cmdline()) for mark in marks)]
    except psutil.NoSuchProcess:
        return []


def family_of(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def done(store, spoiled=frozenset()):
    """The cells that are complete. Each other is missing, or was spoiled here and not seen by a run yet."""
    states = {cell: store.state(cell) for cell in STUDY.cells}
    for cell, state in states.items():
        assert state in (State.DONE, State.MISSING) or cell in spoiled, cell.path
    assert store.strangers(STUDY.cells) == []
    return {cell for cell, state in states.items() if state is State.DONE}


def contents(store, cell):
    """Records and provenance of a cell, without what no two runs share."""
    held = store.held(cell, in_full=True)
    assert held.state is State.DONE, cell.path
    table = held.table()
    table = table.drop_columns([name for name in table.column_names if name in ("seconds", "microseconds")])
    return table, {key: one for key, one in held.metadata.items() if key not in ("wall_seconds", "digest")}


def require_equal(store, unbroken):
    for cell in STUDY.cells:
        (table, metadata), (expected, wanted) = contents(store, cell), contents(unbroken, cell)
        assert table.equals(expected), cell.path
        assert metadata == wanted
    kept = {path for path in store.files.names() if path.parts[0] != SET_ASIDE}
    assert kept == {cell.path for cell in STUDY.cells} | {Path(LABEL), Path(LOCK)}


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def nothing(_):
    return b""


def zeros(content):
    return bytes(len(content))


def test_kills_of_workers_and_runners_at_random_moments_and_spoiled_files_leave_what_an_unbroken_run_does(
    tmp_path, study_file, unbroken
):
    draw = random.Random(SEED)
    store, moments, spoils, finished = Store(tmp_path / "store-0"), 0, 0, 0
    spoiled = set()
    cluster = pytest.importorskip("importlib.util").find_spec("distributed") is not None
    while moments < MOMENTS:
        before = done(store, spoiled)
        spoiled -= before
        if before and draw.random() < 0.3:
            victim, spoil = (
                draw.choice(sorted(before, key=lambda cell: cell.path)),
                draw.choice([cut, flip, nothing, zeros]),
            )
            store.files.write(victim.path, spoil(store.files.read(victim.path)))
            assert store.state(victim) in (State.CORRUPT, State.CHANGED)
            before.discard(victim)
            spoiled.add(victim)
            spoils += 1
        on_cluster = cluster and draw.random() < 0.2
        arguments = ("--processes", "2", *(("--scheduler", "local") if on_cluster else ()))
        with started(study_file, store.folder, *arguments) as process:
            while not list(store.folder.glob(".run-*")) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 6))
            family = family_of(process)
            if draw.random() < 0.4 and (workers := workers_of(process)):
                with suppress(psutil.NoSuchProcess):
                    draw.choice(workers).kill()
                moments += 1
                _, errors = process.communicate(timeout=300)
                assert process.returncode == 0, errors
            elif process.poll() is None:
                number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
                with suppress(ProcessLookupError):
                    process.send_signal(number)
                moments += 1
                _, errors = process.communicate(timeout=60)
                assert process.returncode in (0, -number, 128 + number), errors
            else:
                _, errors = process.communicate()
                assert process.returncode == 0, errors
            assert "Traceback" not in errors or process.returncode == -signal.SIGKILL, errors
            assert psutil.wait_procs(family, timeout=15)[1] == []
        after = done(store, spoiled)
        assert before <= after, "a record was lost"
        if len(after) == len(STUDY.cells):
            require_equal(store, unbroken)
            finished += 1
            store = Store(tmp_path / f"store-{finished}")
            spoiled.clear()
    run(STUDY, store, processes=1)
    require_equal(store, unbroken)
    print(
        f"{moments} kills, {spoils} spoiled files, {finished + 1} studies complete and equal to the unbroken"
    )


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_runs_that_begin_on_one_store_at_once_one_computes_and_one_is_refused(
    tmp_path, study_file, unbroken, attempt
):
    store = Store(tmp_path / "store")
    with started(study_file, store.folder, "--processes", "1") as one:
        time.sleep(0.1 * attempt)
        with started(study_file, store.folder, "--processes", "1") as other:
            told = {process: process.communicate(timeout=300)[1] for process in (one, other)}
    assert sorted(process.returncode for process in told) == [0, 2]
    [refused] = [text for process, text in told.items() if process.returncode == 2]
    assert refused.startswith("wdlg: --store is ")
    assert "another run is computing there" in refused
    require_equal(store, unbroken)


@contextmanager
def small_disk(folder, size):
    """A disk of so many bytes in memory; skipped where this user may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk may not be mounted here")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount")
@pytest.mark.parametrize("more", [(), ("--scheduler", "local")], ids=["processes", "cluster"])
def test_a_disk_that_fills_up_and_one_that_may_only_be_read_stop_a_run_in_a_sentence(
    tmp_path, study_file, unbroken, more
):
    if more:
        pytest.importorskip("distributed")
    with small_disk(tmp_path / "disk", "64k") as change:
        store = Store(tmp_path / "disk" / "store")

        def attempt():
            with started(study_file, store.folder, "--processes", "2", *more) as process:
                _, errors = process.communicate(timeout=300)
                assert "Traceback" not in errors
                return process.returncode, errors.splitlines()[-1] if errors else ""

        for _ in range(2):
            code, sentence = attempt()
            assert code == 2
            assert sentence.startswith(
                f"wdlg: --store is '{store.folder}', but cannot be written to (No space left"
            )
            assert 0 < len(done(store)) < len(STUDY.cells)
            assert not list(store.folder.rglob("*.part"))
        change("size=10m,ro")
        before = done(store)
        code, sentence = attempt()
        assert (code, done(store)) == (2, before)
        assert "cannot be written to (Read-only file system)" in sentence
        status = subprocess.run(
            [WDLG, "study", "status", str(study_file), "--store", str(store.folder)],
            capture_output=True,
            check=True,
        )
        assert b"wdlg:" not in status.stderr
        change("size=10m,rw")
        assert attempt()[0] == 0
        require_equal(store, unbroken)


def test_files_that_may_not_grow_are_refused_like_a_full_disk(tmp_path, study_file, unbroken):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    store = Store(tmp_path / "store")
    with started(study_file, store.folder, "--processes", "1", preexec_fn=limit) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "cannot be written to (File too large)" in errors
    assert "Traceback" not in errors
    done(store)
    assert not list(store.folder.rglob("*.part"))
    run(STUDY, store, processes=1)
    require_equal(store, unbroken)
