"""The command that runs a study, in a process of its own."""

import subprocess
import sys
import time
from pathlib import Path

import yaml


def start(folder, content, *arguments):
    """`wdlg study run` on a study, its records in the folder, as the head of a group of processes."""
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    command = [str(Path(sys.executable).with_name("wdlg")), "study", "run", str(folder / "study.yaml")]
    return subprocess.Popen(
        [*command, "--store", str(folder / "store"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process):
    """Until it is so, while the process runs."""
    deadline = time.monotonic() + 300  # the first time all loops are compiled
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
