"""Notebooks run side by side; when a build stops, for whatever reason, all that it started has ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_ins import COMMAND, checkout, simple

from wdlg.book import execution
from wdlg.book.build import build
from wdlg.book.checkout import BookError, Checkout


def test_the_memory_of_a_notebook_is_that_of_its_kernel_not_of_what_starts_it():
    """A process that needs little starts another that fills 200 MB, as papermill starts a kernel."""
    fill = "import sys; print(len(bytearray(b'x' * 200_000_000))); sys.exit(3)"
    start = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {fill!r}]))"
    # Measured from a fresh process, as small as a build is: a child starts with the peak of its parent.
    measure = (
        "import subprocess, sys; from wdlg.book import execution; "
        f"process = subprocess.Popen([sys.executable, '-c', {start!r}], stdout=subprocess.PIPE, text=True); "
        "output, memory = execution.output_and_memory(process); "
        "print(output.strip(), process.returncode, memory)"
    )
    found = subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, check=True)
    printed, code, memory = map(int, found.stdout.split())
    assert (printed, code) == (200_000_000, 3)
    assert 400e6 < memory < 500e6  # the bytes and their copy


def test_a_failing_notebook_stops_the_build_with_its_name_cell_and_error(tmp_path):
    slow = "import time\nfrom pathlib import Path\ntime.sleep(300)\nPath('finished').touch()"
    root = checkout(
        tmp_path,
        {
            "00_summary": simple(),
            "01_introduction": simple("x = 1", "1 / 0"),
            "02_related_work": simple(slow),
        },
    )
    old = root / "book" / "_build" / "html" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("the pages of an earlier build")
    with pytest.raises(BookError, match=r"01_introduction.*cell 4.*ZeroDivisionError: division by zero"):
        build(root=root)
    assert not list(root.rglob("finished")), "the other notebook was waited for"
    assert old.read_text() == "the pages of an earlier build"


@pytest.mark.parametrize("deaf", ["kernel", "both"])
def test_what_does_not_end_when_asked_is_ended_with_all_that_it_started(tmp_path, monkeypatch, deaf):
    """A kernel is in a group of its own, and may outlive what started it."""
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    kernel = ignore + "import time; print('there', flush=True); time.sleep(300)"
    papermill = (ignore if deaf == "both" else "") + (
        f"import subprocess, sys; subprocess.call([sys.executable, '-c', {kernel!r}], start_new_session=True)"
    )
    monkeypatch.setattr(execution, "PATIENCE", 0.5)
    running = execution.Execution(Checkout(tmp_path), {}, {}, ())
    with subprocess.Popen(
        [sys.executable, "-c", papermill], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "there\n"
        running.running.add(process)
        running.stop()
        assert process.wait(timeout=60) == -(signal.SIGKILL if deaf == "both" else signal.SIGTERM)
        assert process.stdout.read() == ""  # closed, so the one below has ended too


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_request_to_end_ends_the_kernels_too(tmp_path, request_to_end):
    waiting = "import os, time\nopen('kernel', 'w').write(str(os.getpid()))\ntime.sleep(300)"
    root = checkout(tmp_path, {"00_summary": simple(), "01_introduction": simple(waiting)})
    process = subprocess.Popen(
        COMMAND,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with SIGINT ignored, and every child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    )
    note = root / "book" / "executed" / "notebooks" / "kernel"
    try:
        wait_until(lambda: note.exists() and note.read_text(), seconds=60)
        kernel = int(note.read_text())
        process.send_signal(request_to_end)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + request_to_end
    assert "Traceback" not in errors
    wait_until(lambda: not alive(kernel), seconds=20)
    assert not (root / "book" / "_build" / "html").exists()


def wait_until(condition, *, seconds):
    """Poll until a condition holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def alive(number):
    """Whether a process runs; one that has ended and was not yet collected does not."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
