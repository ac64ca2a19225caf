"""Each cell has a file of its own and says all that decides its records."""

import copy
import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st
from small_study import CONTENT, DEFENDED, small_study

from wdlg.attacks import DLG, WDLG, Optimised
from wdlg.networks import ResNet
from wdlg.optimizers import Adam
from wdlg.study import draw, schema
from wdlg.study.cells import describe_attack, file_name
from wdlg.study.specification import from_mapping


def paths(**changes):
    return [cell.path for cell in small_study(**changes).cells]


def named(*names):
    """Paths of the main part, with iDLG under these names."""
    attacks = {name: {"label_rule": "row_sum"} for name in names}
    part = {**CONTENT["parts"]["main"], "attacks": list(names), "networks": 1}
    return paths(attacks=attacks, parts={"main": part})


def test_names_that_differ_in_punctuation_only_have_files_of_their_own():
    names = [
        "iDLG",
        "iDLG+",
        "iDLG-",
        "(iDLG)",
        "iDLG tuned",
        "iDLG-tuned",
        "iDLG, tuned",
        "iDLG%2B",
        "../iDLG",
    ]
    found = named(*[name for name in names if not name.startswith(".")])
    assert len(set(found)) == len(names) - 1
    assert all(len(path.parts) == 4 for path in found)


ATTACK_NAMES = st.one_of(
    st.sampled_from(sorted(schema.NAMES)),
    st.sampled_from(sorted(file_name(name) for name in schema.NAMES)),
    st.text("aA-+ ,.()%/\\é_~0", min_size=1),
)


@given(ATTACK_NAMES, ATTACK_NAMES)
def test_no_two_names_share_a_file(first, second):
    files = [file_name(name) for name in (first, second)]
    assert (files[0] == files[1]) == (first == second)
    assert all("/" not in file and "\\" not in file for file in files)


def test_rates_and_levels_that_are_nearly_the_same_have_files_of_their_own():
    rates = [0.1, 0.1000000001, 1, 1.0000001, 1e6, 1000001]
    part = {**CONTENT["parts"]["rates"], "learning_rates": rates}
    found = paths(parts={"rates": part})
    assert len(set(found)) == len(rates)
    assert {path.parts[3] for path in found} >= {"rate-0.1", "rate-1", "rate-0.1000000001"}
    levels = [{"name": "noise", "level": level} for level in (0.1, 0.1000000001, 1e20, 1e-20)]
    part = {**CONTENT["parts"]["main"], "networks": 1, "attacks": ["iDLG"], "defences": levels}
    found = paths(parts={"main": part})
    assert len(set(found)) == len(levels)
    assert "noise-level-0.1" in {path.parts[3] for path in found}


def test_the_description_of_an_attack_holds_every_setting():
    for attack in (DLG, WDLG, Optimised("x", "row_sum", optimizer=Adam())):
        described = describe_attack(attack)
        for field in ("loss", "optimizer"):
            kind = type(getattr(attack, field))
            assert set(described[field]) == {"name"} | {one.name for one in dataclasses.fields(kind)}
        assert set(described) == {one.name for one in dataclasses.fields(Optimised)} - {"name"}


def test_settings_with_nothing_left_out_stay_as_they_are():
    for cell in (*small_study().cells, *from_mapping(DEFENDED).cells):
        settings = json.loads(json.dumps(cell.settings()))
        assert schema.complete(settings) == settings


def test_a_part_names_its_network_and_weights_and_records_carry_every_setting(digits):
    content = copy.deepcopy(CONTENT)
    content["parts"]["main"] |= {"network": {"name": "resnet", "width": 4}, "initial": "uniform"}
    content["parts"]["labels"] |= {"datasets": ["mnist"], "network": "convnet", "initial": "uniform"}
    study = from_mapping(content)
    cell, labels = study.part("main")[0], study.part("labels")[0]
    assert draw(digits, cell.design).network == ResNet((1, 8, 8), 10, width=4)
    settings = cell.settings()
    assert settings["network"] == {
        **{"name": "resnet", "width": 4, "blocks": 1, "mode": "evaluation", "strides": (1, 2, 2)},
        "bound": 0.5,
    }
    assert (settings["design"]["activation"], settings["design"]["initial"]) == ("relu", "uniform")
    assert (labels.settings()["network"]["name"], labels.settings()["initial"]) == ("convnet", "uniform")
    for one in (cell, labels):
        through_json = json.loads(json.dumps(one.settings()))
        assert schema.complete(through_json) == through_json


def test_records_from_before_networks_had_names_are_of_lenets_with_uniform_weights():
    for cell in (small_study().part("main")[0], small_study().part("labels")[0]):
        settings = json.loads(json.dumps(cell.settings()))
        older = copy.deepcopy(settings)
        older["network"] = {"channels": 12, "strides": [2, 2, 1], "bound": 0.5}
        del older.get("design", older)["initial"]
        assert schema.complete(older) == settings
        del older["network"]
        assert schema.complete(older) == settings


def test_every_cell_can_be_a_key():
    attacks = {"a": {"label_rule": "row_sum", "optimizer": {"name": "adam", "betas": [0.5, 0.9]}}}
    part = {**CONTENT["parts"]["main"], "attacks": ["a"]}
    study = small_study(attacks=attacks, parts={"main": part})
    assert len(set(study.cells)) == 3
