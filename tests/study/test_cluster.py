"""Cells on a Dask cluster: the same records, a lost worker costs its cell alone, what differs is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from click.testing import CliRunner
from deadly import always_five, begun, fatal_five
from small_study import CONTENT, small_study
from started import start, wait_until

from wdlg.cli import main
from wdlg.errors import InputError
from wdlg.study import cluster as clusters
from wdlg.study.cluster import Cluster, connect, identity
from wdlg.study.executors import LostError, do_all
from wdlg.study.runner import run
from wdlg.study.store import METADATA_KEY, State, Store

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.xdist_group("cluster"),
    # Its own sockets and processes, which it leaves to the system when a test kills them.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def workers():
    """Two workers on this machine."""
    with connect("local", workers=2) as there:
        yield there


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """All records of a small study, computed in this thread."""
    study, store = small_study(), Store(tmp_path_factory.mktemp("filled"))
    run(study, store, processes=1)
    return study, store


def without_times(store, cell):
    """Records and metadata as they are in the file, but for what no two runs share."""
    held = store.held(cell)
    table = held.table()
    measured = [name for name in table.column_names if name in ("seconds", "microseconds")]
    metadata = {key: value for key, value in held.metadata.items() if key not in ("wall_seconds", "digest")}
    return table.drop_columns(measured), metadata


def same_records(study, one, other):
    for cell in study.cells:
        assert one.state(cell) is State.DONE
        (table, metadata), (expected, wanted) = without_times(one, cell), without_times(other, cell)
        assert table.equals(expected)
        assert metadata == wanted


def test_a_cluster_computes_every_task_once(workers, tmp_path):
    found = {}
    do_all(
        begun,
        [(tmp_path, number) for number in range(30)],
        executor=workers,
        processes=1,
        then=found.__setitem__,
    )
    assert found == {number: number for number in range(30)}
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path / f"{number}-0" for number in range(30))


def test_tasks_that_look_the_same_are_not_taken_for_one(workers, tmp_path):
    do_all(begun, [(tmp_path, 5)] * 4, executor=workers, processes=1, then=lambda *_: None)
    assert len(list(tmp_path.iterdir())) == 4


def test_records_are_those_of_a_run_on_this_machine_but_for_the_times(workers, filled, tmp_path):
    study, expected = filled
    store = Store(tmp_path / "store")
    assert run(study, store, executor=workers) == []
    same_records(study, store, expected)
    assert store.strangers(study.cells) == []
    assert not list(store.folder.glob(".run-*"))


def broken(number):
    raise ZeroDivisionError(f"in {number}")


def test_an_error_on_a_worker_comes_back_after_its_retries(workers):
    # What an executor hands out next is not disturbed by what was cancelled before.
    with pytest.raises(ZeroDivisionError, match="^in 1$"):
        do_all(broken, [(1,)], executor=fresh(workers), processes=1, then=lambda *_: None)


def fresh(workers):
    """Another view of the same workers: one that has failed hands out no more."""
    return Cluster(workers._client)


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_a_worker_that_is_killed_in_the_middle_of_a_task_loses_that_task_alone(tmp_path):
    found = []
    with connect("local", workers=2) as there:
        tasks = [(tmp_path, number) for number in range(20)]
        do_all(fatal_five, tasks, executor=there, processes=1, then=lambda place, _: found.append(place))
    assert sorted(found) == list(range(20))
    assert len(list(tmp_path.glob("5-*"))) == 2


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_a_process_that_is_killed_costs_what_was_in_hand_and_the_run_goes_on(tmp_path):
    found = []
    tasks = [(tmp_path, number) for number in range(20)]
    do_all(fatal_five, tasks, executor=None, processes=2, then=lambda place, _: found.append(place))
    assert sorted(found) == list(range(20))
    assert len(list(tmp_path.glob("5-*"))) == 2


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
@pytest.mark.parametrize(
    "where", ["processes", pytest.param("cluster", marks=pytest.mark.cluster)], ids=["processes", "cluster"]
)
def test_a_task_that_kills_each_worker_is_left_out_and_named_when_all_others_are_done(tmp_path, where):
    found = []

    def all_of(executor):
        with pytest.raises(LostError, match="^task 5 of 8 lost each worker that began it") as caught:
            do_all(
                always_five,
                [(tmp_path, number) for number in range(8)],
                executor=executor,
                processes=2,
                then=lambda place, _: found.append(place),
            )
        assert caught.value.places == (5,)

    if where == "processes":
        all_of(None)
    else:
        with connect("local", workers=2) as there:
            all_of(there)
    assert sorted(found) == [0, 1, 2, 3, 4, 6, 7]
    assert len(list(tmp_path.glob("5-*"))) == (4 if where == "processes" else 8)


@pytest.mark.cluster
def test_where_all_workers_of_this_machine_are_gone_they_are_started_anew(monkeypatch):
    monkeypatch.setattr(clusters, "DESERTED", 1)
    monkeypatch.setattr(Cluster, "patience", 0.5)
    found = []
    with connect("local", workers=1) as there:
        there._client.retire_workers()
        deadline = time.monotonic() + 60
        while there.count():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        do_all(abs, [(-3,)], executor=there, processes=1, then=lambda _, result: found.append(result))
    assert found == [3]


def test_what_a_lost_worker_had_stored_is_not_computed_again(filled, monkeypatch):
    study, store = filled
    monkeypatch.setattr("wdlg.study.runner.compute", lambda *_: pytest.fail("computed again"))
    from wdlg.study.runner import compute_file

    for cell in study.cells:
        good, content = compute_file(cell, Path(), store)
        assert content is None
        assert good <= cell.attacks


# What is refused


def test_workers_of_another_version_or_revision_are_refused_before_anything_is_computed(workers, monkeypatch):
    for name, says in (("wdlg", "wdlg "), ("revision", "wdlg at revision "), ("sources", "of digest ")):
        monkeypatch.setattr(clusters, "identity", lambda name=name: {**identity(), name: "another"})
        with pytest.raises(
            InputError, match=rf"^worker tcp://.* has .*{says}.*, but must have another"
        ) as caught:
            Cluster(workers._client)
        assert "\n" not in str(caught.value)
        monkeypatch.undo()


def test_a_worker_that_ends_while_it_is_looked_at_is_not_taken_for_one_that_differs(workers, monkeypatch):
    answers = {"tcp://10.0.0.1:1": OSError("Stream is closed")}
    monkeypatch.setattr(workers._client, "run", lambda *_, **__: answers)
    Cluster(workers._client)
    answers["tcp://10.0.0.1:1"] = ModuleNotFoundError("No module named 'wdlg.study'")
    with pytest.raises(InputError, match=r"^worker tcp://10.0.0.1:1 has no package wdlg like that"):
        Cluster(workers._client)


def test_a_worker_that_comes_later_is_looked_at_by_its_first_task(workers):
    there = fresh(workers)
    there._expected = {**identity(), "torch": "0.1"}
    with pytest.raises(InputError, match=r"^worker tcp://.* has torch .*, but must have 0.1"):
        do_all(abs, [(1,)], executor=there, processes=1, then=lambda *_: None)


def test_the_identity_tells_sources_apart_that_a_revision_does_not(tmp_path, monkeypatch):
    package = tmp_path / "wdlg" / "study"
    package.mkdir(parents=True)
    (package / "cluster.py").write_text("a")
    monkeypatch.setattr(clusters, "__file__", str(package / "cluster.py"))
    found = []
    for text in ("a", "b"):
        (package / "cluster.py").write_text(text)
        identity.cache_clear()
        found.append(identity()["sources"])
    identity.cache_clear()
    assert found[0] != found[1]


def test_workers_with_several_threads_and_what_is_no_client_are_refused():
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as several,
        distributed.Client(several) as client,
        pytest.raises(InputError, match=r"^worker .* has 2 threads, but must have one: start it"),
    ):
        Cluster(client)
    with pytest.raises(InputError, match="^client is 5, but must be a distributed.Client"):
        Cluster(5)


def test_who_does_not_see_the_run_in_the_store_computes_and_writes_nothing(tmp_path, filled):
    study, _ = filled
    with Store(tmp_path / "store").taken(study) as there:
        there.require_run()
    with pytest.raises(InputError, match=r"^--store is .*, but on .* the run is not seen there: it has"):
        there.put(study.cells[0], b"")
    elsewhere = Store(tmp_path / "a folder of this machine", run="of another machine")
    with pytest.raises(InputError, match="the run is not seen there"):
        run_one(study.cells[0], elsewhere)
    assert not elsewhere.folder.exists()


def run_one(cell, store):
    from wdlg.study.runner import compute_file

    return compute_file(cell, Path(), store)


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    return path


MISTAKES = {
    "nobody there": (("tcp://127.0.0.1:9",), "--scheduler is 'tcp://127.0.0.1:9', but must be the address"),
    "no address": (("nowhere",), "--scheduler is 'nowhere', but must be the address of a scheduler that"),
    "a foreign file": ((__file__,), f"--scheduler is '{__file__}', but must be the address of"),
    "workers of its own": (
        ("tcp://127.0.0.1:9", "--processes", "2"),
        "--processes is 2, but must be left out with --scheduler tcp://127.0.0.1:9",
    ),
    "no workers": (("local", "--processes", "0"), "--processes is 0, but must be a whole number"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_with_a_scheduler_is_one_sentence(study_file, tmp_path, arguments, sentence, monkeypatch):
    monkeypatch.setattr(clusters, "PATIENCE", 1)
    assert sentence in refusal(study_file, tmp_path, arguments)


def test_without_the_extra_a_sentence_names_it_and_nothing_else_needs_it(study_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    told = refusal(study_file, tmp_path, ("local",))
    assert "a cluster needs the extra 'cluster', which is not installed" in told
    assert "pip install 'wdlg[cluster]'" in told


def refusal(study_file, tmp_path, arguments):
    command = ["study", "run", str(study_file), "--store", str(tmp_path / "store"), "--scheduler", *arguments]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 2, answer.output
    assert answer.stderr.startswith("wdlg: ")
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()
    return answer.stderr


# The command


def computing(process):
    """The workers of a cluster that a command has started: processes with the library's threads in them."""
    family = psutil.Process(process.pid).children(recursive=True)
    return [one for one in family if "spawn_main" in " ".join(one.cmdline())]


LONG = {
    **CONTENT,
    "parts": {"main": {**CONTENT["parts"]["main"], "attacks": ["iDLG"], "networks": 12, "evaluations": 200}},
}


@pytest.mark.cluster
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_a_study_on_two_local_workers_of_which_one_is_killed_has_the_records_of_an_unbroken_run(tmp_path):
    study, store = small_study(**LONG), Store(tmp_path / "store")
    process = start(tmp_path, LONG, "--scheduler", "local", "--processes", "2")
    try:
        wait_until(lambda: len(list(store.folder.rglob("*.parquet"))) >= 2, process)
        victim = computing(process)[0]
        victim.kill()
        output, errors = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    assert "2 workers, dashboard at http://" in errors
    assert "Traceback" not in errors
    assert "everything that can be computed here" in output
    unbroken = Store(tmp_path / "unbroken")
    run(study, unbroken, processes=1)
    same_records(study, store, unbroken)
    print(f"{len(study.cells)} cells on two workers, one of them killed: {errors.splitlines()[0]}")


SLOW = {"name": "gradient_descent", "learning_rate": 1e-5}
ENDLESS = {
    **CONTENT,
    "attacks": {"iDLG": {"label_rule": "row_sum", "stop_loss": 1e-30, "optimizer": SLOW}},
    "parts": {
        "first": {**CONTENT["parts"]["main"], "attacks": ["iDLG"], "networks": 2, "evaluations": 1},
        "main": {**CONTENT["parts"]["main"], "attacks": ["iDLG"], "evaluations": 10**6},
    },
}


@pytest.mark.cluster
@pytest.mark.skipif(os.name != "posix", reason="these are POSIX signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_whatever_ends_a_run_its_local_workers_end_with_it(tmp_path, number, code):
    store, study = Store(tmp_path / "store"), small_study(**ENDLESS)
    process = start(tmp_path, ENDLESS, "--scheduler", "local", "--processes", "2")
    try:
        wait_until(lambda: list(store.folder.rglob("*.parquet")), process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert psutil.wait_procs(family, timeout=15)[1] == []
        if number != signal.SIGKILL:
            assert "Traceback" not in errors
        with store.taken(study):
            assert not list(store.folder.rglob("*.part"))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler in a process of its own, and the file that says where it is."""
    file = tmp_path / "scheduler.json"
    process = dask("scheduler", file, "--port", "0", "--no-dashboard")
    while not file.exists() or not file.read_text().endswith("}"):
        assert process.poll() is None
        time.sleep(0.05)
    yield process, file
    process.kill()
    process.wait()


def dask(program, file, *arguments, **settings):
    command = [
        sys.executable,
        "-m",
        f"distributed.cli.dask_{program}",
        "--scheduler-file",
        str(file),
        *arguments,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=file.parent, **settings
    )


@pytest.mark.cluster
def test_when_the_scheduler_ends_a_sentence_says_so_and_what_is_finished_is_stored(tmp_path, scheduler):
    process, file = scheduler
    workers = [dask("worker", file, "--nthreads", "1", "--no-dashboard") for _ in range(2)]
    store, study = Store(tmp_path / "run" / "store"), small_study(**ENDLESS)
    command = start(tmp_path / "run", ENDLESS, "--scheduler", str(file))
    try:
        wait_until(lambda: list(store.folder.rglob("*.parquet")), command)  # the scheduler orders the rest
        process.kill()
        _, errors = command.communicate(timeout=90)
    finally:
        for one in (*workers, command):
            one.kill()
            one.wait()
    assert command.returncode == 2
    assert errors.splitlines()[-1].startswith(
        f"wdlg: --scheduler is '{file}', but nothing answers there any more"
    )
    assert {store.state(cell) for cell in study.cells} == {State.DONE, State.MISSING}


@pytest.mark.cluster
def test_a_worker_whose_package_differs_in_one_comment_is_refused(tmp_path, scheduler):
    import shutil

    _, file = scheduler
    shutil.copytree(Path(clusters.__file__).parents[1], tmp_path / "other" / "wdlg")
    with (tmp_path / "other" / "wdlg" / "errors.py").open("a") as changed:
        changed.write("# another\n")
    worker = dask(
        *("worker", file, "--nthreads", "1", "--no-dashboard"),
        env={**os.environ, "PYTHONPATH": str(tmp_path / "other")},
    )
    try:
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(1, timeout=60)
        with (
            pytest.raises(InputError, match=r"^worker tcp://.* has wdlg (at|with) .*, but must have .*, as"),
            connect(str(file)),
        ):
            pass
    finally:
        worker.kill()
        worker.wait()


def test_a_record_says_nothing_of_the_machine_but_its_kind(filled):
    study, store = filled
    metadata = store.held(study.cells[0]).file.metadata.metadata[METADATA_KEY].decode()
    assert os.uname().nodename not in json.loads(metadata).values()
    assert isinstance(store.read(study.cells[0]), pd.DataFrame)
