"""`wdlg study`: run, shown, audited, judged; stores and files that are refused; records out of a wheel."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from commands import ROOT, run
from small_study import CONTENT

from wdlg import project


@pytest.fixture
def study_file(tmp_path):
    """A study of two cells, and the folder for its records."""
    parts = {"main": {**CONTENT["parts"]["main"], "networks": 1, "evaluations": 10}}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "parts": parts}))
    return path, tmp_path / "records"


def test_a_study_is_run_shown_audited_and_judged(study_file):
    path, store = study_file
    empty = json.loads(run("study", "status", path, "--store", store, "--json").stdout)
    assert [group["done"] for group in empty["groups"]] == [0, 0]
    answer = run("study", "run", path, "--store", store, "--processes", 1)
    assert answer.exit_code == 0, answer.output
    full = json.loads(run("study", "status", path, "--store", store, "--json").stdout)
    assert [(group["done"], group["seconds_left"]) for group in full["groups"]] == [(1, 0), (1, 0)]
    assert "1/1" in run("study", "status", path, "--store", store).stdout
    audit = run("study", "audit", path, "--store", store, "--attacks", 2, "--seed", 0)
    assert audit.exit_code == 0
    assert "the records stand" in audit.stdout
    arguments = ("study", "audit", path, "--store", store, "--attacks", 1, "--seed", 4, "--json")
    report = json.loads(run(*arguments).stdout)
    assert (report["study"], report["seed"], report["passed"]) == ("small", 4, True)
    assert report["finished"].endswith("+00:00")
    assert report["audited_by"]["wdlg"]
    assert len(report["findings"]) == 1
    claims = json.loads(run("study", "report", path, "--store", store, "--json").stdout)
    assert {"id", "claim", "verdict", "condition", "numbers", "interval"} <= set(claims[0])
    assert claims[0]["claim"] in run("study", "report", path, "--store", store).stdout


def test_a_study_is_not_begun_on_a_sample_file_that_cannot_be_read(tmp_path):
    parts = {"main": {**CONTENT["parts"]["main"], "datasets": ["digits", "svhn"]}}
    path, store = tmp_path / "small.yaml", tmp_path / "records"
    path.write_text(yaml.safe_dump({**CONTENT, "parts": parts}))
    (tmp_path / "svhn.npz").write_bytes(b"half a file")
    answer = run("study", "run", path, "--store", store, "--processes", 1, "--data-dir", tmp_path)
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"wdlg: sample file {tmp_path / 'svhn.npz'} cannot be read")
    assert not list(store.rglob("*.parquet"))


def test_an_audit_of_spoiled_records_fails_in_words(study_file):
    path, store = study_file
    run("study", "run", path, "--store", store, "--processes", 1)
    victim = next(store.rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-30])
    answer = run("study", "audit", path, "--store", store, "--attacks", 1)
    assert answer.exit_code == 1
    assert "cannot be read" in answer.stdout
    assert "the records do not stand" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nothing.yaml"), "STUDY is 'nothing.yaml'"),
        (("run", "{study}", "--part", "mian"), "--part is 'mian', but must be one of main"),
        (("run", "{study}", "--processes", "0"), "processes is 0"),
        (("audit", "{study}", "--attacks", "0"), "--attacks is 0"),
        (("audit", "{study}"), "must hold attacks of the study"),
    ],
)
def test_a_mistake_with_a_study_is_one_sentence(study_file, arguments, message):
    path, store = study_file
    arguments = [one.replace("{study}", str(path)) for one in arguments]
    answer = run("study", *arguments, "--store", store)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not store.exists()


def refusal(*arguments):
    """The sentence of a study command that is refused."""
    answer = run("study", *arguments)
    assert answer.exit_code == 2, answer.output
    assert answer.stdout == ""
    assert answer.stderr.startswith("wdlg: ")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


@pytest.mark.parametrize("command", ["report", "audit"])
@pytest.mark.parametrize("empty", [False, True], ids=["no folder", "an empty folder"])
def test_without_records_nothing_is_judged(study_file, command, empty):
    path, store = study_file
    if empty:
        store.mkdir()
    assert f"--store is '{store}', but must hold" in refusal(command, path, "--store", store)


@pytest.mark.parametrize("command", ["run", "status", "audit", "report"])
def test_a_folder_of_other_studies_is_refused_and_nothing_is_moved(study_file, tmp_path, command):
    path, _ = study_file
    for name in ("paper", "readings"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "network-000.parquet").write_text("of another study")
    assert "it holds other files" in refusal(command, path, "--store", tmp_path / "results")
    assert len(list((tmp_path / "results").rglob("*.parquet"))) == 2
    paper = ROOT / "results" / "paper"
    assert "the study 'paper' and not of 'small'" in refusal(command, path, "--store", paper)


@pytest.mark.parametrize("command", ["run", "status", "audit", "report"])
def test_a_store_that_is_a_file_is_refused(study_file, command):
    path, store = study_file
    store.write_text("a file")
    assert "must be a folder" in refusal(command, path, "--store", store)
    assert store.read_text() == "a file"


def test_a_foreign_file_is_refused_without_printing_it(tmp_path):
    for content in (b"word " * 10**5, bytes(range(256)) * 100):
        (tmp_path / "study.yaml").write_bytes(content)
        assert len(refusal("report", tmp_path / "study.yaml")) < 400 + len(str(tmp_path))


def shipped(tmp_path, monkeypatch):
    """The project's studies and one part of its records, as a wheel brings them along."""
    home = tmp_path / "site-packages" / "wdlg" / "shipped"
    shutil.copytree(ROOT / "studies", home / "studies")
    shutil.copytree(ROOT / "results" / "paper" / "labels", home / "results" / "paper" / "labels")
    shutil.copy(ROOT / "results" / "paper" / "store.json", home / "results" / "paper")
    monkeypatch.setattr(project, "SHIPPED", home)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


def test_outside_a_checkout_a_study_of_the_project_has_the_records_that_came_with_it(tmp_path, monkeypatch):
    home = shipped(tmp_path, monkeypatch)
    for named in ("paper", home / "studies" / "paper.yaml"):
        claims = {claim["id"]: claim for claim in json.loads(run("study", "report", named, "--json").stdout)}
        assert claims["label-cost"]["verdict"] != "undecided"
    # A study of the reader's own has no other's records, whatever its name.
    shutil.copy(home / "studies" / "paper.yaml", "mine.yaml")
    assert "'results/paper', but must hold records" in refusal("report", "mine.yaml")
    # What the reader has computed comes first, and what is to be computed goes to the working folder.
    Path("results/paper").mkdir(parents=True)
    assert "'results/paper', but must hold records" in refusal("report", "paper")


def test_from_anywhere_an_editable_installation_has_the_records_of_its_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = ROOT / "studies" / "paper.yaml"
    assert project.study_file("paper") == file
    assert project.records_beside(file, "paper") == ROOT / "results" / "paper"
    (tmp_path / "results" / "paper").mkdir(parents=True)
    assert project.records_beside(tmp_path / "studies" / "paper.yaml", "paper") is None


@pytest.mark.parametrize("name", ["papre", "x" * 300, "../paper"])
def test_an_unknown_study_is_refused(name):
    assert f"STUDY is {name!r}, but must be a readable YAML file" in refusal("report", name)


def test_a_store_with_a_name_that_no_folder_can_have_is_refused(study_file):
    assert "cannot be read (File name too long)" in refusal("run", study_file[0], "--store", "x" * 300)
