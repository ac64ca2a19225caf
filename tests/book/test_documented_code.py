"""The code that pages show is run: examples with their answers, and programs with a smaller budget."""

import doctest
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import wdlg
from wdlg import study
from wdlg.attacks import Optimised
from wdlg.attacks.labels import RULES
from wdlg.attacks.priors import PRIORS, PROJECTIONS
from wdlg.losses import LOSSES
from wdlg.networks import NETWORKS
from wdlg.optimizers import OPTIMIZERS
from wdlg.sharing.defences import DEFENCES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]


def blocks(language):
    """Each block of code in that language, with its page, as parameters of a test."""
    found = [
        (path, number, code)
        for path in PAGES
        for number, code in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), flags=re.DOTALL | re.MULTILINE), 1
        )
    ]
    return [pytest.param(code, id=f"{path.stem}-{number}") for path, number, code in found]


@pytest.fixture
def as_a_new_user(monkeypatch):
    """Budgets that would take long are cut; and what a program registers is gone after it."""
    whole = wdlg.run_paired  # asked for by this name first: it is looked up in `study` once, and then kept

    def short(cases, attacks, *, device="cpu", **_):
        few = cases.select(torch.arange(len(cases))[:100])
        cut = [
            replace(attack, evaluations=20)
            if isinstance(attack, Optimised) and attack.evaluations > 400
            else attack
            for attack in attacks
        ]
        return whole(few, cut, device=device)

    for module in (study, wdlg):
        monkeypatch.setattr(module, "run_paired", short)
    for registry in (LOSSES, RULES, PRIORS, PROJECTIONS, OPTIMIZERS, DEFENCES, NETWORKS):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))


@pytest.mark.usefixtures("as_a_new_user")
@pytest.mark.parametrize("code", blocks("python"))
def test_a_program_of_a_page_runs(code):
    exec(compile(code, "page", "exec"), {"__name__": "page"})


def with_examples():
    return [path for path in PAGES if "```pycon" in path.read_text()]


@pytest.mark.parametrize("path", with_examples(), ids=lambda path: path.stem)
def test_the_examples_of_a_page_answer_as_it_says(path):
    text = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", path.read_text(), flags=re.DOTALL | re.MULTILINE))
    examples = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    assert examples.examples
    report = []
    result = doctest.DocTestRunner().run(examples, out=report.append)
    assert result.failed == 0, "".join(report)


def test_the_troubleshooting_page_links_to_the_threads_that_it_names():
    text = (ROOT / "book" / "troubleshooting.md").read_text()
    asked = re.findall(r"^\*Asked in .*\*$", text, flags=re.MULTILINE)
    assert len(asked) >= 8
    for line in asked:
        links = re.findall(r"\[\w+ (\d+)\]\(https://github\.com/[\w-]+/[\w-]+/issues/(\d+)\)", line)
        assert links
        assert all(said == linked for said, linked in links), line
