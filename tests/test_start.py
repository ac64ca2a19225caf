"""A command loads what it uses: libraries take longer to import than many an attack."""

import gc
import subprocess
import sys

import pytest

from wdlg.cli.options import loading

COMMAND = """
import sys
from wdlg.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end
print("loaded:", *sorted({name for name in sys.modules if name.count(".") < 2}))
"""

TABLES_AND_FIGURES = {
    "pandas",
    "pyarrow",
    "scipy.stats",
    "scipy.optimize",
    "sklearn",
    "statsmodels",
    "matplotlib",
    "ot",
}
IDLG = ("attack", "--dataset", "digits", "--method", "idlg", "--evaluations", "1")


@pytest.mark.parametrize(
    ("command", "unused"),
    [
        (IDLG, {*TABLES_AND_FIGURES, "joblib", "seaborn", "torchvision"}),
        (("data", "list"), {*TABLES_AND_FIGURES, "torch", "numba"}),
        (("--help",), {*TABLES_AND_FIGURES, "torch", "numba", "numpy"}),
    ],
)
def test_a_command_does_not_load_what_it_does_not_use(command, unused):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *command], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert "click" in loaded
    assert not loaded & unused


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_again_after_loading_if_it_was_before(collects):
    before = gc.isenabled()
    try:
        gc.enable() if collects else gc.disable()
        with loading():
            assert not gc.isenabled()
        assert gc.isenabled() == collects
    finally:
        gc.enable() if before else gc.disable()
        gc.unfreeze()
