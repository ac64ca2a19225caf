"""Every notebook as a reader launches it: alone in an empty folder, with the package installed from a wheel.

The heavy dependencies are those of this environment; the package and its records come from the wheel alone.
Here a few notebooks run with few and short attacks. ``make launched`` runs all of them, with the settings
that they have.
"""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from papermill import inspect_notebook

from wdlg.book.build import ONE_THREAD

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

AS_THEY_ARE = os.environ.get("WDLG_LAUNCHED") == "as-they-are"

IN_THE_SUITE = ("06_engine",)
"""One that reads what the wheel brings; to compute in an empty folder takes the others a minute each."""

SMALL = {
    "evaluations": 40,
    "cases": 2,
    "points": 7,
    "bounds": [0.5, 4.0],
    "saturation_gradients": 5,
    "eps_values": [1.0, 0.1],
}
"""Parameters that make a notebook short, for those that have them."""

SMALL_PART = {
    "networks": 1,
    "images": 2,
    "evaluations": 40,
    "gradients": 10,
    "learning_rates": [0.1, 1.0],
}


def run(command, **settings):
    """Run a command that has to succeed; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550, **settings)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, made from this checkout without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    settings = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    run([sys.executable, "-m", "pip", "wheel", *settings, "--wheel-dir", folder, ROOT])
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of a new virtual environment that holds the wheel, and finds all else in this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A folder that is named in a .pth file does not have its own .pth files read: with them this checkout
    # would come in.
    (packages / "others.pth").write_text(str(Path(torch.__file__).parents[1]))
    return folder / "bin" / "python"


def surroundings(home):
    """Environment variables without a word of this checkout, or of data sets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WDLG"))}
    places = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"), str(home))
    return {**kept, **ONE_THREAD, **places, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def small_study(folder):
    """The quick study with a few short attacks, as a file."""
    content = yaml.safe_load((ROOT / "studies" / "quick.yaml").read_text())
    for part in content["parts"].values():
        part.update({name: value for name, value in SMALL_PART.items() if name in part})
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content | {"name": "small"}))
    return path


def test_the_launched_package_is_not_that_of_the_checkout(python, tmp_path):
    look = "import json, sys, wdlg; print(json.dumps([wdlg.__file__, sys.path]))"
    package, path = json.loads(run([python, "-c", look], cwd=tmp_path, env=surroundings(tmp_path)))
    assert Path(package).is_relative_to(python.parents[1])
    assert not [place for place in path if place and (Path(place) / "notebooks").exists()]


def test_the_wheel_has_all_that_is_committed_and_nothing_that_a_build_left(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = ("wdlg", "studies", "results", "benchmarks/*.json", "CITATION.cff")
    tracked = run(["git", "ls-files", *shipped], cwd=ROOT).split()
    expected = {
        name if name.startswith("wdlg/") else f"wdlg/shipped/{name}"
        for name in tracked
        if Path(ROOT, name).exists()
    }
    # Modules that are not committed yet may be there too.
    assert expected <= set(names)
    assert {name for name in names if name.startswith("wdlg/shipped/")} <= expected
    assert wheel.stat().st_size < 25e6


@pytest.mark.parametrize(
    "notebook",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in IN_THE_SUITE else pytest.mark.launched)
        for path in NOTEBOOKS
    ],
)
def test_a_launched_notebook_runs_in_an_empty_folder(python, notebook, tmp_path):
    folder, home = tmp_path / "launched", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    copy = folder / notebook.name
    copy.write_bytes(notebook.read_bytes())
    parameters = {}
    if not AS_THEY_ARE:
        declared = inspect_notebook(str(notebook))
        parameters = {name: value for name, value in SMALL.items() if name in declared}
        if declared.get("study", {}).get("default") == '"quick"':
            parameters["study"] = str(small_study(home))
    (home / "parameters.yaml").write_text(yaml.safe_dump(parameters))
    command = [
        *(python, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR", "--kernel", "python3"),
        *("--parameters_file", home / "parameters.yaml", copy.name, "executed.ipynb"),
    ]
    run(command, cwd=folder, env=surroundings(home))
    executed = (folder / "executed.ipynb").read_text()
    assert str(ROOT) not in executed
