"""A parameter of another kind is named in one sentence, before anything is computed."""

import pytest

from wdlg import data, project
from wdlg.book import pages
from wdlg.errors import InputError, require_list, require_text


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"name": 3}, "study"),
        ({"name": None}, "study"),
        ({"name": "quick", "store": 3}, "store"),
        ({"name": "quick", "compute": "yes"}, "compute"),
        ({"name": "quick", "parts": "labels"}, "parts"),
    ],
)
def test_a_study_is_named_by_texts_and_its_parts_by_a_list(settings, name):
    with pytest.raises(InputError, match=f"^{name} is "):
        pages.study(**settings)


@pytest.mark.parametrize("wanted", [{"dataset": "mnist"}, {"method": []}, {"method": None}])
def test_what_a_page_wants_of_its_records_is_a_list(wanted, tmp_path):
    planned, stored = pages.study("paper")
    with pytest.raises(
        InputError, match=rf"^{next(iter(wanted))} is .*must be a list with at least one entry"
    ):
        pages.records(planned, stored, ["labels"], **wanted)


def test_the_store_of_another_study_is_refused():
    other = project.locate("results", "readings")
    with pytest.raises(InputError, match="that is the store of the study 'readings' and not of 'paper'"):
        pages.study("paper", str(other))


def test_a_folder_that_is_called_like_a_study_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    monkeypatch.chdir(tmp_path)
    assert project.study_file("paper").name == "paper.yaml"


@pytest.mark.parametrize("value", ["", 3, None, ["a"]])
def test_a_text_is_a_text(value):
    with pytest.raises(InputError, match="^name is"):
        require_text("name", value)


@pytest.mark.parametrize("value", ["abc", 3, None, [], (), {"a": 1}])
def test_a_list_has_entries(value):
    with pytest.raises(InputError, match="^values is"):
        require_list("values", value)


def test_a_data_folder_is_named_by_a_text_or_a_path(tmp_path):
    assert data.data_dir(tmp_path) == data.data_dir(str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match="^data_dir is 3, but must be the name of a folder"):
        data.data_dir(3)
