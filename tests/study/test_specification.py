"""A study file means what it says, and a mistake in it is one sentence."""

import copy
import json
from dataclasses import dataclass

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_study import CONTENT, DEFENDED, small_study

from wdlg.attacks import DLG, IDLG, WDLG, Optimised, with_settings
from wdlg.attacks.priors import Box, TotalVariation
from wdlg.errors import InputError
from wdlg.losses import SquaredEuclidean, Wasserstein
from wdlg.optimizers import Adam, GradientDescent
from wdlg.registry import Registry
from wdlg.study import draw
from wdlg.study.cells import describe_attack
from wdlg.study.specification import build_attack, from_mapping, load
from wdlg.updates.distance import squared_euclidean


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


def test_a_part_may_give_some_attacks_an_optimiser_of_their_own():
    content = _with({"iDLG": {"name": "adam", "signed": True}}, "parts", "main", "optimizers")
    cells = from_mapping(content).part("main")
    assert {cell.attack.name: type(cell.attack.optimizer) for cell in cells}["iDLG"] is Adam
    assert all(cell.attack.optimizer.signed == (cell.attack.name == "iDLG") for cell in cells
               if isinstance(cell.attack.optimizer, Adam))  # fmt: skip
    others = {cell.attack.name: cell.attack.optimizer for cell in cells if cell.attack.name != "iDLG"}
    before = {cell.attack.name: cell.attack.optimizer for cell in small_study().part("main")}
    assert others == {name: before[name] for name in others}
    assert others


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
        attack = Optimised("x", "row_sum", Wasserstein(eps=rate), Adam(rate), evaluations)
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
        (_with("vgg", "parts", "main", "network"), "^parts.main: network is 'vgg'"),
        (_with({"width": 3}, "parts", "main", "network"), "^parts.main.network has no 'name'"),
        (
            _with({"name": "resnet", "depth": 3}, "parts", "labels", "network"),
            "^parts.labels: network has the setting 'depth', but allowed are width, blocks, mode",
        ),
        (_with("convnet", "parts", "main", "network"), r"^parts.main: image_shape is \(1, 8, 8\)"),
        (_with("normal", "parts", "main", "initial"), "^initial is 'normal'"),
        (_with("normal", "parts", "labels", "initial"), "^parts.labels.initial is 'normal'"),
        (_with("half", "parts", "labels", "dtype"), "^parts.labels.dtype is 'half'"),
        (
            _with({"LM": {"name": "adam"}}, "parts", "main", "optimizers"),
            "^parts.main.optimizers has the key",
        ),
        (_with({"iDLG": {"name": "adan"}}, "parts", "main", "optimizers"), "^parts.main.optimizers.iDLG"),
        (
            _with({"iDLG": {"name": "adam"}}, "parts", "rates", "optimizers"),
            "^parts.rates.optimizers is given, but must be left out where optimizer is",
        ),
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


# Names


DEFENCES = ("parts", "main", "defences")
LABELS, RULE, WDLG_LOSS = CONTENT["parts"]["labels"], {"label_rule": "row_sum"}, ("attacks", "WDLG", "loss")


def twice(value):
    return [value, value]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_with("../../elsewhere", "name"), r"^name is '../../elsewhere', but must be text of letters"),
        (_with("", "name"), "^name is '', but must be text"),
        (_with(2024, "name"), "^name is 2024, but must be text"),
        (_with("a\0b", "name"), "^name is 'a.x00b', but must be text"),
        (_with(LABELS, "parts", "../../labels"), r"^a name in parts is '../../labels'"),
        (_with(LABELS, "parts", ".."), r"^a name in parts is '..'"),
        (_with(LABELS, "parts", ".hidden"), r"^a name in parts is '.hidden'"),
        (_with(LABELS, "parts", "a/b"), r"^a name in parts is 'a/b'"),
        (_with(LABELS, "parts", "a\\b"), r"^a name in parts is 'a..b'"),
        (_with(LABELS, "parts", "end."), r"^a name in parts is 'end.'"),
        (_with(LABELS, "parts", "Set-Aside"), r"^a name in parts is 'Set-Aside'"),
        (_with(LABELS, "parts", "store.json"), r"^a name in parts is 'store.json'"),
        (_with(LABELS, "parts", "x" * 300), r"^a name in parts is 'xxx.*\.\.\..*xxx'"),
        (_with(LABELS, "parts", "Labels"), r"^parts has 'labels' and 'Labels'"),
        (_with(RULE, "attacks", "idlg"), r"^attacks has 'iDLG' and 'idlg'"),
        (_with(RULE, "attacks", ".."), r"^attacks has the name '..'"),
        (_with(RULE, "attacks", ""), r"^attacks has the name ''"),
        (_with(RULE, "attacks", "a\nb"), r"^attacks has the name 'a.nb'"),
        (_with(RULE, "attacks", "é" * 90), r"^attacks has the name .* it must be shorter"),
        (_with(RULE, "attacks", True), r"^attacks has the key True, but a key must be text"),
        (_with(RULE, "attacks", 1), r"^attacks has the key 1, but a key must be text"),
        (_with(twice("digits"), "parts", "main", "datasets"), "^parts.main.datasets has 'digits' twice"),
        (_with(twice("iDLG"), "parts", "main", "attacks"), "^parts.main.attacks has 'iDLG' twice"),
        (_with([1, 1.0], "parts", "rates", "learning_rates"), "^parts.rates.learning_rates has 1.0 twice"),
        (_with(twice("relu"), "parts", "labels", "activations"), "activations has 'relu' twice"),
        (
            _with([{"name": "quantisation"}, {"name": "quantisation", "bits": 8}], *DEFENCES),
            r"^parts.main.defences has Quantisation\(.*\) twice",
        ),
        (_with([None], "parts", "rates", "learning_rates"), "^parts.rates.learning_rates is None"),
        (_with(["x"], "parts", "rates", "learning_rates"), "^parts.rates.learning_rates is 'x'"),
        (_with([["digits"]], "parts", "main", "datasets"), r"^parts.main.datasets is \('digits',\)"),
        (_with([{"a": 1}], "parts", "main", "attacks"), r"^parts.main.attacks is \{'a': 1\}, but must"),
        (_with({"a": 1}, "pool"), r"^pool is \{'a': 1\}, but must be a single value"),
        (_with({"a": 1}, "attacks", "iDLG", "label_rule"), "^attacks.iDLG.label_rule has no 'name'"),
        (_with(["row_sum"], "attacks", "iDLG", "label_rule"), r"^label_rule is \('row_sum',\)"),
        (_with({"name": "wasserstein", "eps": {}}, *WDLG_LOSS), r"^attacks.WDLG.loss.eps is \{\}"),
        (_with(10**9, "parts", "main", "networks"), "^parts.main has 2,000,000,000 cells, but"),
        (list(range(10**5)), r"^the study is \[0, 1, 2, 3, 4, 5, \.\.\.\]"),
    ],
)  # fmt: skip
def test_a_name_a_duplicate_or_an_entry_that_cannot_be_is_one_short_sentence(content, message):
    with pytest.raises(InputError, match=message) as caught:
        from_mapping(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


# Files that are no study files, and what YAML makes of text


def load_text(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (yaml.safe_dump(CONTENT) + "seed: 4\n", "the key 'seed' is there twice"),
        ("attacks: {a: {x: 1}, a: {x: 2}}", "line 1: the key 'a' is there twice"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "but must be a readable YAML file"),
        (b"abc\0def", "but must be a readable YAML file"),
        ("word " * 5000, "an entry has 24999 characters, and none may have more than 200"),
        ("name: 2024-13-45", "month must be in 1..12"),
        ("[" * 5000, "nested too deep"),
        ("import os\nprint(os)", "study.yaml: the study is 'import os print.os.', but must be a table"),
        ("name: x\non: 1\nseed: 1\nattacks: {}\nparts: {}", "has the key True, but a key must be text"),
        ("? [a, b]\n: 1", "study.yaml"),
        ("*" + "x" * 5000, "study.yaml"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_study_is_refused_in_one_short_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        load_text(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_number_is_a_number_with_and_without_a_point(tmp_path):
    text = yaml.safe_dump(CONTENT).replace("label_rule: row_sum", "label_rule: row_sum\n    stop_loss: 1e-8")
    text = text.replace("- 0.1", "- 1E+3").replace("eps: 0.5", "eps: 5e-1")
    study = load_text(tmp_path, text)
    assert {cell.attack.stop_loss for cell in study.part("rates")} == {1e-8}
    assert {cell.rate for cell in study.part("rates")} == {1000.0, 1.0}
    assert {cell.attack.loss for cell in study.part("main")} >= {Wasserstein(eps=0.5)}


def test_a_merged_key_may_be_replaced(tmp_path):
    text = yaml.safe_dump({**CONTENT, "attacks": "HERE"})
    attacks = "{iDLG: &base {label_rule: row_sum}, WDLG: {<<: *base, label_rule: bias_sign}}"
    study = load_text(tmp_path, text.replace("HERE", attacks))
    assert {cell.attack.label_rule.name for cell in study.part("main")} == {"row_sum", "bias_sign"}


# Settings in full


GEIPING = {
    "label_rule": "bias_sign",
    "loss": {"name": "cosine"},
    "optimizer": {"name": "adam", "signed": True, "milestones": [9, 15]},
    "priors": [{"name": "total_variation", "weight": 0.1}],
    "projection": {"name": "box", "low": -1.0},
}


def test_priors_and_a_projection_come_from_a_file_and_go_back_to_it():
    attack = build_attack("x", GEIPING)
    assert attack.priors == (TotalVariation(0.1),)
    assert attack.projection == Box(-1.0, 1.0)
    assert attack.optimizer == Adam(signed=True, milestones=(9, 15))
    described = describe_attack(attack)
    assert described["priors"] == GEIPING["priors"]
    assert described["projection"] == {"name": "box", "low": -1.0, "high": 1.0}
    assert build_attack("x", json.loads(json.dumps(described))) == attack


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"priors": {"name": "total_variation", "weight": 1}}, "^attacks.x.priors is "),
        ({"priors": [{"name": "total_variation"}]}, "^attacks.x.priors has no 'weight'"),
        ({"priors": ["total_variation"]}, "^attacks.x.priors is 'total_variation', but must be a table"),
        ({"projection": "box"}, "^attacks.x.projection is 'box', but must be a table"),
        (
            {"projection": {"name": "sphere"}},
            "^attacks.x.projection.name is 'sphere', but must be one of box",
        ),
        ({"optimizer": {"name": "lbfgs"}}, "^projection is "),
    ],
)
def test_wrong_priors_and_projections_in_a_file_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        build_attack("x", {**GEIPING, **changes})


@dataclass(frozen=True)
class Twice:
    """A loss of one's own."""

    factor: float = 2.0

    def __call__(self, dummy, shared):
        return self.factor * squared_euclidean(dummy, shared)


def test_a_kind_of_ones_own_is_registered_once_by_a_name():
    losses = Registry("LOSSES", {"squared_euclidean": SquaredEuclidean})
    with pytest.raises(
        InputError, match=r"^LOSSES has no Twice, but must know it by a name: register\(name, Twice"
    ):
        losses.describe(Twice())
    losses.register("twice", Twice)
    losses.register("twice", Twice)
    assert losses.build("loss", {"name": "twice", "factor": 3.0}) == Twice(3.0)
    assert losses.describe(Twice(3.0)) == {"name": "twice", "factor": 3.0}
    assert list(losses) == ["squared_euclidean", "twice"]
    assert len(losses) == 2
    for name, kind, message in (
        ("twice", SquaredEuclidean, "^name is 'twice', but LOSSES has a Twice of it"),
        ("two words", Twice, "^name is 'two words'"),
        ("function", squared_euclidean, "^kind is .* must be a frozen dataclass"),
        ("value", Twice(), "^kind is .* must be a frozen dataclass"),
    ):
        with pytest.raises(InputError, match=message):
            losses.register(name, kind)


def test_the_typeset_study_is_the_papers_until_somebody_puts_in_its_values():
    typeset, paper = (load(f"studies/{name}.yaml").part("main") for name in ("typeset", "paper"))
    assert {cell.path for cell in typeset} < {cell.path for cell in paper}
    by_path = {cell.path: cell for cell in paper}
    for cell in typeset:
        assert cell.settings() == by_path[cell.path].settings()
    assert {cell.attack.name for cell in typeset} == {"DLG", "iDLG", "WDLG"}
