"""Notebooks with a study of the reader's own: a page shows what is there and says what is not.

The code of a notebook, up to its exercises, is executed here, in a folder without a checkout. All studies
have the records of one, so that these are computed once.
"""

import ast
import re
from dataclasses import replace
from functools import cache

import pytest
import yaml
from test_project import NOTEBOOKS, read, text_of

from wdlg import study
from wdlg.book import pages
from wdlg.book.exercises import HEADING
from wdlg.study import mechanism, runner
from wdlg.study.paired import run_paired
from wdlg.study.specification import from_mapping
from wdlg.study.store import Store
from wdlg.verdicts import ledger
from wdlg.verdicts.ledger import from_store

ATTACKS = {
    "DLG": {"label_rule": "joint"},
    "iDLG": {"label_rule": "row_sum"},
    "WDLG": {"label_rule": "bias_sign", "loss": {"name": "wasserstein"}},
    "Strongest": {"label_rule": "bias_sign", "loss": {"name": "wasserstein", "penalty": float("inf")}},
    "mine": {"label_rule": "bias_min", "loss": {"name": "cosine"}},
}
SIZE = {"datasets": ["digits"], "networks": 1, "images": 2, "evaluations": 20}
NOISE = [{"name": "none"}, {"name": "noise", "level": 0.01}]
PARTS = {
    "main": {**SIZE, "networks": 2, "attacks": list(ATTACKS)},
    "screen": {**SIZE, "attacks": ["iDLG", "mine"]},
    "rates-lbfgs": {**SIZE, "attacks": ["iDLG", "WDLG", "mine"], "learning_rates": [0.3, 1]},
    "rates-descent": {
        **SIZE,
        "attacks": ["mine"],
        "optimizer": {"name": "gradient_descent"},
        "learning_rates": [0.1],
    },
    "labels": {"datasets": ["digits"], "activations": ["sigmoid", "relu"], "gradients": 10},
    "noise": {**SIZE, "attacks": ["iDLG"], "defences": NOISE},
}


def mapping(**parts):
    """The content of a study file with some of the parts, some keys of these replaced."""
    changed = {name: {**PARTS[name], **changes} for name, changes in parts.items()}
    return {"name": "mine", "seed": 3, "attacks": ATTACKS, "parts": changed}


STUDIES = {
    "everything": mapping(**{part: {} for part in PARTS}),
    "no DLG": mapping(main={"attacks": ["iDLG", "WDLG", "Strongest"]}, labels={}),
    "no iDLG": mapping(main={"attacks": ["DLG", "WDLG", "Strongest"]}, labels={"activations": ["relu"]}),
    "no WDLG, no Strongest": mapping(main={"attacks": ["DLG", "iDLG"]}, **{"rates-descent": {}}),
    "one attack of one's own in one network": mapping(
        main={"attacks": ["mine"], "networks": 1}, **{"rates-lbfgs": {"learning_rates": [1]}}
    ),
    "attacks only": mapping(main={}),
    "labels only": mapping(labels={}),
    "a part of another name": mapping(noise={}),
}
"""By what a reader would say of them."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The folder with the records of all studies."""
    folder = tmp_path_factory.mktemp("records")
    runner.run(from_mapping(STUDIES["everything"]), Store(folder), processes=1)
    return folder


@cache
def of_paper():
    return from_store(*pages.study("paper"))


def judged(planned, stored, **settings):
    """A ledger; that of the paper's records, which two notebooks show, is computed once."""
    return of_paper() if planned.name == "paper" else from_store(planned, stored, **settings)


def shorter(cases, attacks, **settings):
    """What a notebook computes by itself, with short attacks."""
    return run_paired(cases, [replace(attack, evaluations=20) for attack in attacks], **settings)


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Execute a notebook with parameters; the numbers that its text quotes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "run_paired", shorter)
    monkeypatch.setattr(mechanism, "run_paired", shorter)
    monkeypatch.setattr(ledger, "from_store", judged)
    quoted = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, **_: quoted.update({name: value}))

    def execute(path, **parameters):
        names = {"__name__": "launched"}
        for cell in read(path).cells:
            if cell.source.startswith(HEADING):
                break
            tags = cell.metadata.get("tags", [])
            if cell.cell_type == "code" and "launch" not in tags:
                show(cell.source, names)
            if "parameters" in tags:
                assert set(parameters) <= set(names)
                names.update(parameters)
        return quoted

    return execute


def show(source, names):
    """Execute a cell, and what a notebook does with the value of its last line."""
    *statements, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        statements.append(last)
    exec(compile(ast.Module(statements, []), "<cell>", "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        for form in ("_repr_png_", "_repr_html_"):
            if hasattr(value, form):
                getattr(value, form)()


def own_parameters(path, folder, content, store):
    """Parameters of a notebook for a study file of the reader's own."""
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    names = {}
    [source] = [cell.source for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    exec(source, names)
    wanted = {"study": str(file), "store": str(store), "compute": False, "dataset": "digits", "cases": 2}
    wanted |= {"parts": [part for part in content["parts"] if part.startswith("rates")] or ["rates-lbfgs"]}
    wanted |= {"saturation_gradients": 3, "bounds": [0.5], "evaluations": 20}
    return {name: value for name, value in wanted.items() if name in names}


OF_STUDIES = [path for path in NOTEBOOKS if "study = " in "".join(cell.source for cell in read(path).cells)]


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("path", OF_STUDIES, ids=lambda path: path.stem)
def test_a_page_shows_what_a_study_holds_and_says_what_it_does_not(
    path, name, stored, launch, tmp_path, capsys
):
    quoted = launch(path, **own_parameters(path, tmp_path, STUDIES[name], stored))
    check_text(path, quoted)


def check_text(path, quoted):
    text = text_of(path).split(HEADING)[0]
    for key in re.findall(r"\{glue:text\}`([^`:]+)", text):
        shown = str(quoted[key])
        assert shown, key
        assert not re.search(r"\b(nan|None|NaN)\b|<", shown), f"{key}: {shown}"
        assert shown == pages.NOT_MEASURED or pages.NOT_MEASURED not in shown, f"{key}: {shown}"
