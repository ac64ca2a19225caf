"""The notebooks of a build run side by side, each in a process of its own, and end with the build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import Any

import click
import psutil
import yaml

from wdlg.book.checkout import BookError, Checkout
from wdlg.book.executed import failure, finish, missing

LAST = ("07_status",)
"""Notebooks that read what the others left."""

PATIENCE = 10.0
"""Seconds that papermill and its kernel have to end when asked, once a build stops."""


class Execution:
    """The notebooks of one build: independent ones side by side, then those that read their results."""

    def __init__(
        self,
        checkout: Checkout,
        parameters: Mapping[str, Mapping[str, Any]],
        environment: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        self.checkout = checkout
        self.parameters = parameters
        self.environment = environment
        self.names = names
        self.stopping = False
        self.changed = threading.Condition()  # held by who reads or changes `stopping` and `running`
        self.running: set[subprocess.Popen[str]] = set()
        self.done = 0

    def run(self, jobs: int) -> None:
        """Execute all; the first failure stops the others."""
        stages = [[name for name in self.names if name not in LAST], *([name] for name in LAST)]
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for stage in stages:
                    tasks = [pool.submit(self.execute, name) for name in stage if name in self.names]
                    for task in as_completed(tasks):
                        task.result()
            except BaseException:
                # Before the pool waits for its threads, end what they wait for.
                self.stop()
                raise

    def stop(self) -> None:
        """End every notebook that runs, with its kernel, and start no other."""
        with self.changed:
            self.stopping = True
            # papermill dies without ending its kernel. A kernel ends itself once its parent is process 1, but
            # orphans come to another process where one asks for them (systemd, containers, CI runners).
            alive = [member for process in self.running for member in _family(process.pid)]
            for member in alive:
                with suppress(psutil.NoSuchProcess):
                    member.terminate()
            self.changed.wait_for(lambda: not self.running, timeout=PATIENCE)
            for process in self.running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGSTOP)  # so that it starts no kernel from here on
            alive += [member for process in self.running for member in _family(process.pid)]
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.kill()

    def execute(self, name: str) -> None:
        """Run one notebook in a process of its own."""
        target = self.checkout.executed / "notebooks" / f"{name}.ipynb"
        settings = target.with_suffix(".yaml")
        command = [
            *(sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR"),
            *("--kernel", "python3", "--cwd", str(target.parent), "--parameters_file", str(settings)),
            *(str(self.checkout.notebooks / target.name), str(target)),
        ]
        started = time.perf_counter()
        with self.changed:
            if self.stopping:
                return
            click.echo(f"[{self.done}/{len(self.names)}] {name} started")
            settings.write_text(yaml.safe_dump(dict(self.parameters.get(name) or {})))
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            self.running.add(process)
        output, memory = output_and_memory(process)
        settings.unlink()
        with self.changed:
            self.running.discard(process)
            self.changed.notify_all()
            if self.stopping:
                return
        if process.returncode != 0:
            raise BookError(failure(target) or f"notebook {name} failed:\n{output.strip()[-2000:]}")
        finish(target, memory)
        self.done += 1
        click.echo(f"[{self.done}/{len(self.names)}] {name} done in {time.perf_counter() - started:.0f} s")
        for line in missing(target):
            click.echo(f"    {line}")


def _family(pid: int) -> list[psutil.Process]:
    """A process and every process below it; none if it has ended."""
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def output_and_memory(process: subprocess.Popen[str]) -> tuple[str, int]:
    """What a process printed until its end, and the peak memory of the largest process below it, in bytes.

    The system itself counts it, for papermill and every process that it has waited for: the kernel is one of
    them. Processes that ran side by side are not added up, and none counts less than this process had used
    when it started them.
    """
    assert process.stdout is not None
    with process.stdout as pipe:
        output = pipe.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return output, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
