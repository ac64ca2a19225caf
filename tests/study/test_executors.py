"""Whoever computes, each task is computed once, and what is finished is kept when another fails."""

import math
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from small_study import small_study
from threadpoolctl import threadpool_info

from wdlg import compiled
from wdlg.attacks import IDLG
from wdlg.errors import InputError
from wdlg.study import Design, draw, executors, run_paired, runner
from wdlg.study.executors import do_all
from wdlg.study.runner import compute_file, run
from wdlg.study.store import State, Store
from wdlg.threads import one_torch_thread

EXECUTORS = {
    "this thread": (nullcontext, 1),
    "threads": (lambda: ThreadPoolExecutor(3), 1),
    "processes": (nullcontext, 2),
}
each_executor = pytest.mark.parametrize(("make", "processes"), EXECUTORS.values(), ids=EXECUTORS)


@each_executor
def test_every_task_is_computed_once(make, processes):
    found = []
    with make() as executor:
        do_all(
            math.sqrt,
            [(number * number,) for number in range(20)],
            executor=executor,
            processes=processes,
            then=lambda place, root: found.append((place, root)),
        )
    assert sorted(found) == [(number, float(number)) for number in range(20)]


@each_executor
def test_the_first_error_is_raised_and_what_is_finished_is_kept(make, processes):
    found = {}
    with make() as executor, pytest.raises(ValueError, match="math domain error"):
        do_all(
            math.sqrt,
            [(0,), (1,), (-1,), (-4,)],
            executor=executor,
            processes=processes,
            then=found.__setitem__,
        )
    assert found.items() <= {0: 0.0, 1: 1.0}.items()
    if executor is not None or processes == 1:
        assert len(found) == 2


def interrupt(_place, _result):
    raise KeyboardInterrupt


def test_ctrl_c_ends_the_processes_that_were_started_here_at_once():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        do_all(time.sleep, [(0.1,), (300,), (300,)], executor=None, processes=2, then=interrupt)
    assert time.monotonic() - started < 60
    family = psutil.Process().children(recursive=True)
    assert not any("LokyProcess" in " ".join(one.cmdline()) for one in family)


def test_ctrl_c_leaves_out_what_threads_have_not_begun_and_keeps_what_they_have():
    begun, release, kept = [], threading.Event(), []

    def task(number):
        begun.append(number)
        if number:
            release.wait(10)
        return number

    def stopped_by_the_user(place, _result):
        if not kept:
            kept.append("stopped")
            release.set()
            raise KeyboardInterrupt
        kept.append(place)

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(KeyboardInterrupt):
            do_all(
                task,
                [(number,) for number in range(50)],
                executor=executor,
                processes=1,
                then=stopped_by_the_user,
            )
        assert kept == ["stopped", *begun]
    assert len(begun) < 50


def test_tasks_of_a_pool_whose_thread_has_died_are_computed_by_another(monkeypatch):
    monkeypatch.setattr(executors, "PATIENCE", 0.3)
    workers = executors.Processes(2)
    pool = workers.executor
    pool.submit(time.sleep, 0).result()  # now it has a thread
    over = threading.Thread()
    over.start()
    over.join()
    monkeypatch.setattr(pool, "_executor_manager_thread", over)
    found = {}
    tasks = [(1.5,)] * 3
    do_all(time.sleep, tasks, executor=workers, processes=2, then=found.__setitem__)
    assert found == dict.fromkeys(range(3))
    assert workers.executor is not pool


# Studies


def plain(frame):
    return frame.drop(columns="seconds")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """All records of a small study, computed in this thread."""
    study, store = small_study(), Store(tmp_path_factory.mktemp("filled"))
    assert run(study, store, processes=1) == []
    return study, store


WAYS = {
    "threads": (lambda: ThreadPoolExecutor(3), None, True),
    "threads, written here": (lambda: ThreadPoolExecutor(3), None, False),
    "processes": (nullcontext, 2, True),
    "processes, written here": (nullcontext, 2, False),
    "this thread, written here": (nullcontext, 1, False),
}


@pytest.mark.parametrize(("make", "processes", "workers_write"), WAYS.values(), ids=WAYS)
def test_records_are_the_same_wherever_they_are_computed_and_written(
    filled, tmp_path, make, processes, workers_write
):
    study, expected = filled
    store = Store(tmp_path / "store")
    with make() as executor:
        run(study, store, executor=executor, processes=processes, workers_write=workers_write)
    for cell in study.cells:
        assert store.state(cell) is State.DONE
        one, other = (
            plain(records) if "seconds" in records else records
            for records in (store.read(cell), expected.read(cell))
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_plain_pickle_sends_a_cell_to_any_process_and_its_file_back(filled, tmp_path):
    study, expected = filled
    function, arguments = pickle.loads(pickle.dumps((compute_file, (study.cells[0], tmp_path, None))))
    good, content = pickle.loads(pickle.dumps(function(*arguments)))
    store = Store(tmp_path)
    store.put(study.cells[0], content)
    records = store.read(study.cells[0])
    pd.testing.assert_frame_equal(plain(records), plain(expected.read(study.cells[0])), check_exact=True)
    assert good == (records["mse"] < 0.01).sum()


@pytest.mark.parametrize("workers_write", [True, False])
def test_a_cell_that_fails_raises_its_error_and_leaves_the_other_files_whole(
    tmp_path, monkeypatch, workers_write
):
    study, store = small_study(), Store(tmp_path / "store")
    bad = study.cells[2]
    computed = []

    def compute(cell, _sample):
        if cell == bad:
            raise ZeroDivisionError(f"in {cell.path}")
        computed.append(cell)
        return pd.DataFrame({"mse": [0.5]})

    monkeypatch.setattr(runner, "compute", compute)
    with ThreadPoolExecutor(2) as executor, pytest.raises(ZeroDivisionError, match=f"^in {bad.path}$"):
        run(study, store, executor=executor, workers_write=workers_write)
    states = {cell: store.state(cell) for cell in study.cells}
    assert {cell for cell, state in states.items() if state is State.DONE} == set(computed)
    assert set(states.values()) == {State.DONE, State.MISSING}
    with store.taken(study):  # the store is free again, and nothing in it is half-written
        assert not list(store.folder.rglob("*.part"))


def test_paired_runs_in_threads_bring_what_processes_bring(digits):
    cases = draw(digits, Design(networks=2, images=2))
    attacks = [IDLG]
    with ThreadPoolExecutor(2) as executor:
        threads = run_paired(cases, attacks, snapshot_iterations=(1,), processes=2, executor=executor)
    processes = run_paired(cases, attacks, snapshot_iterations=(1,), processes=2)
    pd.testing.assert_frame_equal(plain(threads.records), plain(processes.records), check_exact=True)
    np.testing.assert_array_equal(threads.snapshots["iDLG"], processes.snapshots["iDLG"])


def test_what_is_no_executor_is_refused_by_name(tmp_path, digits):
    sentence = r"^executor is 4, but must be a concurrent.futures.Executor, such as ThreadPoolExecutor\(4\)"
    with pytest.raises(InputError, match=sentence):
        run(small_study(), Store(tmp_path / "store"), executor=4)
    with pytest.raises(InputError, match=sentence):
        run_paired(draw(digits, Design()), [IDLG], executor=4)


# Threads


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def torch_threads():
    return {torch.get_num_threads()}


@pytest.fixture
def several_threads():
    """Two threads for everything, as on a machine with cores to spare."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("one_thread", "count"),
    [(one_torch_thread, torch_threads), (compiled.one_blas_thread, blas_threads)],
    ids=["torch", "BLAS"],
)
def test_who_ends_first_leaves_the_others_their_one_thread(several_threads, one_thread, count):
    with one_thread():
        count()  # loads what is to be counted
    assert count() == {2}
    first, second, leave = threading.Event(), threading.Event(), threading.Event()
    inside = []

    def short():
        with one_thread():
            first.set()
            second.wait(10)

    def long():
        first.wait(10)
        with one_thread():
            second.set()
            leave.wait(10)
            inside.append(count())

    threads = [threading.Thread(target=target) for target in (short, long)]
    for thread in threads:
        thread.start()
    threads[0].join()
    leave.set()
    threads[1].join()
    assert inside == [{1}]
    assert count() == {2}
