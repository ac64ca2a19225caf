"""What notebooks share: missing data sets are reported, studies are found in a checkout and without one."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from nbformat import v4
from small_study import CONTENT

from wdlg import project
from wdlg.book import pages
from wdlg.errors import InputError
from wdlg.study.audit import TOLERANCES
from wdlg.study.specification import load as load_study
from wdlg.study.store import Store


def test_a_missing_data_set_is_reported_and_the_rest_goes_on(tmp_path, capsys):
    samples = pages.present_samples(["digits", "svhn"], str(tmp_path))
    assert list(samples) == ["digits"]
    line = capsys.readouterr().out
    assert line.startswith(f"{pages.MISSING} svhn")


def test_nothing_but_missing_data_sets_is_an_error(tmp_path):
    with pytest.raises(InputError, match="at least one must be there"):
        pages.present_samples(["svhn"], str(tmp_path))


def test_titles_are_the_catalogues():
    assert pages.title("mnist") == "MNIST"


@pytest.fixture
def small(tmp_path):
    """A study file with a data set that is there and one that is not, and a folder for records."""
    parts = {"labels": CONTENT["parts"]["labels"] | {"datasets": ["digits", "svhn"]}}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(CONTENT | {"parts": parts}))
    return str(file), str(tmp_path / "records")


def test_a_page_computes_what_is_missing_once(small, tmp_path, capsys):
    file, store = small
    planned, stored = pages.study(file, store, parts=["labels"], compute=True, data_dir=str(tmp_path))
    assert capsys.readouterr().out.startswith(f"{pages.MISSING} svhn is missing")
    records = stored.read_all(planned.part("labels"))
    assert len(records) == 2 * CONTENT["parts"]["labels"]["gradients"]
    written = {path: path.stat().st_mtime_ns for path in stored.folder.rglob("*.parquet")}
    pages.study(file, store, parts=["labels"], compute=True, data_dir=str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in stored.folder.rglob("*.parquet")} == written
    capsys.readouterr()
    pages.study(file, store)
    assert capsys.readouterr().out == f"{pages.MISSING} svhn has no records in the study {planned.name}.\n"


def test_a_page_waits_for_the_page_that_computes_in_the_same_store(small, tmp_path):
    file, store = small
    held, over = threading.Event(), threading.Event()

    def hold():
        with Store(store).taken(load_study(file)):
            held.set()
            over.wait(60)

    with ThreadPoolExecutor(2) as pool:
        try:
            other = pool.submit(hold)
            assert held.wait(60)
            page = pool.submit(
                pages.study, file, store, parts=["labels"], compute=True, data_dir=str(tmp_path)
            )
            with pytest.raises(TimeoutError):
                page.result(timeout=1)
        finally:
            over.set()
        planned, stored = page.result(timeout=120)
        other.result()
    assert len(stored.read_all(planned.part("labels"))) > 0


def test_a_study_without_records_says_what_to_run(small):
    file, store = small
    with pytest.raises(InputError, match=rf"^store is .*records.* run `wdlg study run {file}`"):
        pages.study(file, store)


def test_a_study_that_is_nowhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        pages.study("nowhere")


def test_without_a_checkout_new_records_go_to_the_working_folder(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, stored = pages.study(small[0], parts=["labels"], compute=True, data_dir=str(tmp_path))
    assert stored.folder.resolve() == tmp_path / "results" / CONTENT["name"]
    assert list(stored.folder.rglob("*.parquet"))


def test_a_private_image_that_is_not_there_is_reported(tmp_path, capsys):
    assert pages.private_image("svhn", 0, str(tmp_path)) is None
    assert capsys.readouterr().out.startswith(f"{pages.MISSING} svhn has no sample file")
    assert pages.private_image("digits", 0).shape == (1, 8, 8)


def test_executions_are_those_that_papermill_finished(tmp_path):
    times = {"start_time": "2026-01-02T03:04:05.6+00:00", "duration": 7.5}
    for name, metadata in {
        "b": {"papermill": times, "peak_memory": 512_000_000},
        "a": {},
        "c": {"papermill": {"duration": None}},
    }.items():
        notebook = v4.new_notebook(metadata=metadata)
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    (row,) = pages.executions(str(tmp_path)).to_dict("records")
    assert row == {
        "notebook": "b",
        "started (UTC)": "2026-01-02 03:04",
        "seconds": 7.5,
        "peak memory (MB)": 512.0,
    }


@pytest.mark.parametrize("use", [pages.executions, lambda folder: pages.measurements("latest.json", folder)])
def test_a_folder_that_is_a_number_is_refused_by_its_name(use):
    with pytest.raises(InputError, match=r"^folder is 3, but must be a text\.$"):
        use(3)


@pytest.mark.parametrize(
    ("texts", "of", "said"),
    [
        (["1 % (a)", "2 % (b)"], {"a": 1, "b": 2, "c": 3}, "1 % (a), 2 % (b)"),
        ([], {"a": 1}, "none"),
        ([], {}, pages.NOT_MEASURED),
    ],
)
def test_where_nothing_is_to_be_named_a_page_says_none_only_if_it_was_measured(texts, of, said):
    assert str(pages.listed(texts, of=of)) == said


def test_a_table_has_a_caption_and_no_empty_header():
    text = pages.table(pd.DataFrame({"a": [1], "b": [2]}), "What a and b are.").to_html()
    assert "<caption>What a and b are.</caption>" in text
    assert "&nbsp;" not in text


def test_the_case_that_is_pictured_is_the_first_that_shows_something(monkeypatch):
    pictures = {0: np.full((1, 2, 2), 0.5), 1: np.eye(2)[None], 2: np.eye(2)[None]}
    monkeypatch.setattr(pages, "private_image", lambda _name, index, _folder: pictures.get(index))
    rows = [
        {"dataset": name, "network": network, "case": 0, "image": network, "method": method, "pictures": held}
        for name, held in (("digits", b"x"), ("faces", b""))
        for network in range(3)
        for method in ("iDLG", "WDLG")
    ]
    chosen, private = pages.pictured(pd.DataFrame(rows))
    assert list(chosen["network"]) == [1, 1]
    assert list(private) == ["digits"]  # no pictures are stored of the other
    assert private["digits"] is pictures[1]
    none, nobody = pages.pictured(pd.DataFrame(rows).head(0))
    assert len(none) == 0
    assert nobody == {}


def test_the_audit_that_is_kept_is_of_the_papers_study_and_whole():
    report, attacks = pages.last_audit()
    assert report["study"] == "paper"
    assert len(attacks) == len(report["findings"]) > 0
    assert set(attacks["outcome"]) <= {"agrees", "differs late", "differs"}
    assert report["tolerances"] == dataclasses.asdict(TOLERANCES)
    with pytest.raises(InputError, match="nowhere"):
        pages.last_audit("nowhere.json")


def test_the_citation_has_what_the_citation_file_says(tmp_path):
    entry = yaml.safe_load((project.checkout() / "CITATION.cff").read_text())
    bibtex = pages.citation()
    assert bibtex.startswith("@software{wdlg,")
    for part in (entry["title"], entry["version"], entry["repository-code"]):
        assert part in bibtex
    (tmp_path / "CITATION.cff").write_text(
        "title: T\nversion: 1\nrepository-code: u\ndate-released: 2026-01-02\n"
        "authors: [{family-names: He, given-names: Xing}, {name: The group}]\n"
    )
    bibtex = pages.citation(str(tmp_path / "CITATION.cff"))
    assert "author = {He, Xing and {The group}}," in bibtex
    assert "year = {2026}," in bibtex
    with pytest.raises(InputError, match="nowhere"):
        pages.citation("nowhere.cff")
