"""A study file means what it says, and a mistake in it is one sentence."""

import copy
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_study import CONTENT, small_study

from wdlg.attack import DLG, IDLG, WDLG, Attack, with_settings
from wdlg.errors import InputError
from wdlg.losses import Wasserstein
from wdlg.optimizers import Adam, GradientDescent
from wdlg.study import draw
from wdlg.study.specification import build_attack, describe_attack, from_mapping, load


def test_every_point_of_the_grid_is_one_cell_with_a_path_of_its_own():
    study = small_study()
    assert len(study.part("main")) == 2 * 3
    assert len(study.part("rates")) == 2
    assert len(study.part("labels")) == 1
    assert len({cell.path for cell in study.cells}) == len(study.cells)


def test_the_first_network_of_everything_comes_first():
    networks = [cell.design.first_network for cell in small_study().part("main")]
    assert networks == sorted(networks)


def test_the_cells_of_a_network_hold_the_cases_of_the_whole_design(digits):
    cells = [cell for cell in small_study().part("main") if cell.attack.name == "iDLG"]
    drawn = [draw(digits, cell.design) for cell in cells]
    images = [int(index) for cases in drawn for index in cases.image_index]
    assert len(set(images)) == len(images)
    assert all(index % 5 for index in images)  # the final pool leaves every fifth image to development


def test_a_part_sets_optimiser_and_rates():
    rates = small_study().part("rates")
    assert [cell.attack.optimizer for cell in rates] == [GradientDescent(0.1), GradientDescent(1)]


@given(
    st.sampled_from([DLG, IDLG, WDLG]),
    st.floats(1e-3, 1e3),
    st.integers(1, 9999),
    st.sampled_from(["lbfgs", "adam"]),
)
def test_an_attack_comes_back_from_its_description(method, rate, evaluations, optimizer):
    attack = with_settings(method, learning_rate=rate, evaluations=evaluations)
    if optimizer == "adam":
        attack = Attack("x", "row_sum", Wasserstein(eps=rate), Adam(rate), evaluations)
    through_json = json.loads(json.dumps(describe_attack(attack)))
    assert build_attack(attack.name, through_json) == attack


def _without(key, *path):
    content = copy.deepcopy(CONTENT)
    place = content
    for step in path:
        place = place[step]
    del place[key]
    return content


def _with(value, *path):
    content = copy.deepcopy(CONTENT)
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"^the study is \[\], but must be a table"),
        (_without("seed"), "^the study has no 'seed'"),
        (_with(1, "sede"), "^the study has the key 'sede', but allowed are name, seed"),
        (_with("some", "pool"), "^pool is 'some', but must be one of all, development, final"),
        (_with("nothing", "attacks", "iDLG", "label_rule"), "^label_rule is 'nothing'"),
        (
            _with({"name": "wassertsein"}, "attacks", "WDLG", "loss"),
            r"^attacks.WDLG.loss.name is 'wassertsein'",
        ),
        (
            _with({"name": "wasserstein", "epz": 1}, "attacks", "WDLG", "loss"),
            "^attacks.WDLG.loss has the key 'epz'",
        ),
        (_with({"name": "wasserstein", "eps": -1}, "attacks", "WDLG", "loss"), "^eps is -1"),
        (_with(["minst"], "parts", "main", "datasets"), "^parts.main.datasets is 'minst'"),
        (_with(["DLG"], "parts", "main", "attacks"), "^parts.main.attacks is 'DLG'"),
        (_with(0, "parts", "main", "networks"), "^parts.main.networks is 0"),
        (_with(0, "parts", "main", "images"), "^images is 0"),
        (_with([], "parts", "rates", "learning_rates"), r"^parts.rates.learning_rates is \[\]"),
        (_with(0, "parts", "labels", "gradients"), "^parts.labels.gradients is 0"),
        (_with(["gelu"], "parts", "labels", "activations"), "^parts.labels.activations is 'gelu'"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(content, message):
    with pytest.raises(InputError, match=message) as caught:
        from_mapping(content)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_study_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="^STUDY is .*nothing.yaml"):
        load(tmp_path / "nothing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="^STUDY is .*broken.yaml"):
        load(tmp_path / "broken.yaml")
    (tmp_path / "empty.yaml").write_text("name: x")
    with pytest.raises(InputError, match="empty.yaml: the study has no 'seed'"):
        load(tmp_path / "empty.yaml")


def test_a_file_and_its_content_are_the_same_study(tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    assert load(tmp_path / "small.yaml") == small_study()


DEFENDED = {
    **CONTENT,
    "parts": {
        "main": {
            **CONTENT["parts"]["main"],
            "defences": [
                {"name": "none"},
                {"name": "noise", "level": 0.1},
                {"name": "pruning", "share": 0.5},
            ],
        },
        "labels": {
            **CONTENT["parts"]["labels"],
            "defences": [{"name": "quantisation", "bits": 4}, {"name": "noise", "level": 1.0}],
        },
    },
}


def test_a_part_with_defences_has_a_cell_for_each_with_a_path_and_columns_of_its_own():
    study = from_mapping(DEFENDED)
    assert len(study.part("main")) == 3 * 6
    assert len(study.part("labels")) == 2
    assert len({cell.path for cell in study.cells}) == len(study.cells)
    assert len({json.dumps(cell.settings()) for cell in study.cells}) == len(study.cells)
    assert {cell.columns()["defence"] for cell in study.part("main")} == {"none", "noise", "pruning"}
    [noisy] = {cell.columns().get("level") for cell in study.part("main")} - {None}
    assert noisy == 0.1


def test_a_defence_meets_the_cases_of_the_undefended_study(digits):
    plain, noisy = (
        draw(digits, study.part("main")[place].design)
        for study, place in ((small_study(), 0), (from_mapping(DEFENDED), 1))
    )
    assert noisy.defence is not None
    assert (plain.truth == noisy.truth).all()
    assert (plain.dummy_images == noisy.dummy_images).all()


def test_cells_without_a_defence_have_no_column_of_one():
    for cell in small_study().cells:
        assert "defence" not in cell.columns()


@pytest.mark.parametrize(
    ("defences", "message"),
    [
        ([], "^parts.main.defences is .., but must be a list of at least one"),
        ([{"name": "fog"}], "^parts.main.defences.name is 'fog'"),
        ([{"name": "noise", "level": 1.0, "size": 1}], "^parts.main.defences has the key 'size'"),
        ([{"name": "noise"}], "^parts.main.defences has no 'level'"),
        ([{"name": "pruning", "share": 2}], "^share is 2"),
    ],
)
def test_a_mistake_in_a_defence_is_one_sentence(defences, message):
    parts = {"main": {**CONTENT["parts"]["main"], "defences": defences}}
    with pytest.raises(InputError, match=message):
        from_mapping({**CONTENT, "parts": parts})
