"""`wdlg attack` and `wdlg labels`: the promised keys, seeds, own pictures and networks."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import ATTACK, KEYS, result_of, run
from matplotlib.figure import Figure
from PIL import Image

from wdlg import data, figures
from wdlg.attacks import DLG, IDLG, LM, WDLG
from wdlg.attacks import run as attacking
from wdlg.attacks.exact import Exact
from wdlg.attacks.priors import TotalVariation
from wdlg.attacks.restarts import Restarts
from wdlg.errors import InputError


@pytest.mark.parametrize("method", ["dlg", "idlg", "wdlg"])
def test_attack_prints_one_object_with_the_promised_keys(method, digits):
    result = result_of(*ATTACK, "--index", 3, "--method", method)
    assert set(result) == KEYS
    assert result["label_true"] == digits.labels[3]
    assert result["evaluations"] <= 40


@pytest.mark.parametrize("method", ["lm", "exact"])
def test_the_methods_beyond_the_paper_bring_the_picture_itself(method, digits, tmp_path, monkeypatch):
    draw, starts = figures.single_attack, []
    monkeypatch.setattr(
        figures,
        "single_attack",
        lambda *outcome, start: starts.append(start) or draw(*outcome, start=start),
    )
    target = tmp_path / "leak.png"
    new_user = ("attack", "--dataset", "digits", "--index", 3, "--method", method)
    result = result_of(*new_user, "--figure", target)
    assert set(result) == KEYS
    assert result["label_recovered"] == result["label_true"] == digits.labels[3]
    assert result["mse"] < 1e-9
    assert result["status"] == {"lm": "stalled", "exact": "converged"}[method]
    with Image.open(target) as picture:
        assert picture.format == "PNG"
    assert (starts[0] is None) == (method == "exact")
    answer = run(*new_user)
    assert answer.exit_code == 0
    assert answer.stdout.startswith({"lm": "LM on digits", "exact": "exact on digits"}[method])
    assert "4 was recovered as 4" in answer.stdout


def test_the_closed_form_is_unsure_of_a_gradient_with_a_defence():
    result = result_of(*ATTACK[:3], "--method", "exact", "--defence", "noise,level=0.001")
    assert result["status"] == "unsure"
    assert result["relative_error"] == pytest.approx(0.001, rel=0.1)
    assert 1e-9 < result["mse"] < 1e-4


def test_levenberg_marquardt_keeps_to_the_evaluations_that_it_is_told():
    # The first matrix and step of 64 variables take more.
    result = result_of(*ATTACK, "--method", "lm")
    assert (result["status"], result["evaluations"]) == ("budget_spent", 1)


def test_each_option_reaches_the_attack(monkeypatch):
    run_with = []

    def stop(attack, *_, **__):
        run_with.append(attack)
        raise InputError("that is enough.")

    monkeypatch.setattr("wdlg.attacks.run.reconstruct", stop)
    start = ("attack", "--dataset", "digits", "--method")
    run(*start, "idlg", "--first-loss", 8, "--learning-rate", 0.5, "--evaluations", 7)
    run(*start, "wdlg")
    run(*start, "lm")
    run(*start, "exact")
    run(*start, "lm", "--attempts", 3, "--seed", 6)
    run(*start, "dlg", "--total-variation", 0.5)
    told = replace(IDLG, first_loss=8.0, evaluations=7, optimizer=replace(IDLG.optimizer, learning_rate=0.5))
    smooth = replace(DLG, evaluations=2400, priors=(TotalVariation(0.5),))
    expected = [told, replace(WDLG, evaluations=2400), LM, Exact(), Restarts(LM, 3, seed=6), smooth]
    assert run_with == expected


def test_the_same_seed_gives_the_same_numbers():
    first, second, other = (
        result_of(*ATTACK, "--method", "idlg", "--seed", seed) | {"seconds": 0} for seed in (5, 5, 6)
    )
    assert first == second
    assert first["mse"] != other["mse"]


def test_attempts_keep_the_one_of_least_loss(tmp_path):
    arguments = (*ATTACK, "--index", 5, "--method", "idlg", "--seed", 4)
    once = result_of(*arguments)
    thrice = result_of(*arguments, "--attempts", 3, "--figure", tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
    assert thrice["evaluations"] > once["evaluations"]
    assert thrice["loss"] <= once["loss"]
    assert result_of(*arguments, "--attempts", 1)["mse"] == once["mse"]


def test_attack_says_in_words_what_it_did():
    answer = run(*ATTACK, "--method", "idlg", "--evaluations", 400)
    assert answer.exit_code == 0
    for word in ("iDLG on digits", "label", "status", "gradient evaluations", "PSNR"):
        assert word in answer.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_any_work():
    answer = run(*ATTACK, "--method", "idlg", "--device", "cuda")
    assert answer.exit_code == 2
    assert re.fullmatch(
        r"wdlg: --device is 'cuda', but torch \S+ finds no CUDA devices here: take cpu, .*\n", answer.stderr
    )


@pytest.mark.parametrize("device", ["gpu", "meta", ""])
def test_a_device_of_another_kind_is_refused(device):
    answer = run(*ATTACK, "--method", "idlg", "--device", device)
    assert answer.exit_code == 2
    assert answer.stderr == f"wdlg: --device is {device!r}, but must be cpu, cuda, or cuda:1 and so on.\n"


def test_attack_saves_a_figure(tmp_path):
    target = tmp_path / "leak.png"
    answer = run(*ATTACK, "--method", "idlg", "--figure", target)
    assert answer.exit_code == 0
    with Image.open(target) as picture:
        assert picture.format == "PNG"
    assert list(tmp_path.iterdir()) == [target]


def test_a_figure_that_cannot_be_written_costs_neither_the_result_nor_the_one_that_is_there(
    tmp_path, monkeypatch
):
    target = tmp_path / "leak.png"
    target.write_bytes(b"the figure of yesterday")

    def full(figure, path, **settings):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    answer = run(*ATTACK, "--method", "idlg", "--figure", target, "--json")
    assert answer.exit_code == 2
    assert set(json.loads(answer.stdout)) == KEYS
    assert answer.stderr.startswith("wdlg: figure is ")
    assert answer.stderr.endswith("(No space left on device).\n")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the figure of yesterday"]


def test_the_recovered_image_alone_is_saved_pixel_for_pixel(tmp_path):
    from PIL import Image

    answer = run(
        "attack", "--dataset", "digits", "--index", 3, "--method", "exact", "--save", tmp_path / "a.png"
    )
    assert answer.exit_code == 0, answer.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    saved = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(saved, data.load("digits").images[3, ..., 0])


def test_a_sample_file_of_one_s_own_is_attacked(tmp_path):
    digits = data.load("digits")
    own = replace(
        digits,
        name="own",
        images=digits.images[:2, :, :7],
        labels=np.array([0, 2]),
        class_names=(),
        num_classes=3,
        split=digits.split[:2],
        source=digits.source[:2],
    )
    data.write_sample(own, tmp_path / "own.npz")
    answer = run(
        "attack", "--dataset", tmp_path / "own.npz", "--index", 1, "--method", "lm", "--json",
        "--figure", tmp_path / "a.png",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert (told["label_true"], told["label_recovered"]) == (2, 2)
    assert told["mse"] < 1e-9


def test_a_folder_in_the_figures_place_is_refused_before_the_attack(tmp_path, monkeypatch):
    (tmp_path / "leak.png").mkdir()
    monkeypatch.setattr("wdlg.attacks.run.reconstruct", None)
    answer = run(*ATTACK, "--method", "idlg", "--figure", tmp_path / "leak.png")
    assert answer.exit_code == 2
    assert "leak.png', but must be a file that ends in .png" in answer.stderr


def test_attack_takes_a_picture_of_ones_own(tmp_path, digits):
    path = tmp_path / "mine.png"
    Image.fromarray(digits.images[3, :, :, 0]).save(path)
    mine = result_of(*ATTACK, "--method", "idlg", "--image", path, "--label", int(digits.labels[3]))
    listed = result_of(*ATTACK, "--method", "idlg", "--index", 3)
    assert mine["index"] is None
    assert mine["mse"] == listed["mse"]


def own_network(folder):
    """A file with factories of networks, as a user writes one."""
    path = folder / "mine.py"
    path.write_text(
        "from torch import nn\n"
        "def small(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10))\n"
        "def lenet():\n"
        "    from wdlg.audit.examples import lenet_tanh\n"
        "    return lenet_tanh((1, 8, 8), 10)\n"
        "def headless(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh())\n"
        "def frozen():\n"
        "    model = small()\n"
        "    model[1].requires_grad_(False)\n"
        "    return model\n"
        "def few(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    )
    return path


def test_a_network_of_ones_own_is_attacked(tmp_path):
    mine = own_network(tmp_path)
    arguments = ("attack", "--dataset", "digits", "--index", 3, "--method", "lm", "--seed", 2)
    result = result_of(*arguments, "--model", f"{mine}:small")
    assert result["model"] == f"{mine}:small"
    assert (result["label_true"], result["label_recovered"]) == (4, 4)
    assert result["mse"] < 1e-9
    assert result == result_of(*arguments, "--model", f"{mine}:small") | {"seconds": result["seconds"]}
    assert (
        result_of("attack", "--dataset", "digits", "--method", "exact", "--model", f"{mine}:lenet")["mse"]
        < 1e-9
    )


def test_the_network_has_the_weights_that_it_is_given(tmp_path, monkeypatch):
    torch.manual_seed(5)
    kept = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 24), torch.nn.Tanh(), torch.nn.Linear(24, 10)
    )
    torch.save(kept.state_dict(), tmp_path / "weights.pt")
    seen = []
    original = attacking.reconstruct
    monkeypatch.setattr(
        attacking,
        "reconstruct",
        lambda method, observation, *rest, **more: (
            seen.append(observation) or original(method, observation, *rest, **more)
        ),
    )
    mine = f"{own_network(tmp_path)}:small"
    result_of(*ATTACK, "--method", "idlg", "--model", mine, "--weights", tmp_path / "weights.pt")
    (observation,) = seen
    expected = [one.detach().flatten() for one in kept.parameters()]
    for held, right in zip(observation.parameters.tensors, expected, strict=True):
        assert torch.equal(held.flatten(), right)


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("headless", "must end in a linear layer with bias, by which attacks read the label: `wdlg audit`"),
        ("frozen", "must train all its parameters, so that all are sent: `wdlg audit` takes any model"),
        ("few", "with 2 classes, but the image is of class 4"),
        ("absent", "has no absent"),
    ],
)
def test_a_network_that_cannot_be_attacked_is_refused(tmp_path, factory, sentence):
    mine = f"{own_network(tmp_path)}:{factory}"
    answer = run(*ATTACK, "--method", "idlg", "--index", 3, "--model", mine)
    assert answer.exit_code == 2, answer.output
    assert answer.stdout == ""
    assert answer.stderr.startswith("wdlg: ")
    assert answer.stderr.count("\n") == 1
    assert sentence in answer.stderr


def test_labels_compares_both_rules():
    result = result_of("labels", "--dataset", "digits", "--images", 20)
    assert set(result["rules"]) == {"bias_sign", "row_sum"}
    for rule in result["rules"].values():
        assert {"accuracy", "undecided", "steps", "seconds"} <= set(rule)
        assert rule["accuracy"] == 1
    assert result["rules"]["bias_sign"]["steps"] == 10
    text = run("labels", "--dataset", "digits", "--images", 5, "--activation", "tanh").stdout
    assert "bias_sign  100.00 % right" in text


def test_attack_and_labels_take_a_defence():
    plain = result_of(*ATTACK, "--method", "idlg")
    result = result_of(*ATTACK, "--method", "idlg", "--defence", "noise,level=0.5")
    assert set(result) == KEYS | {"defence", "relative_error", "cosine"}
    assert result["defence"] == "noise,level=0.5"
    assert 0.4 < result["relative_error"] < 0.6
    assert result["loss"] > plain["loss"]
    assert "relative error" in run(*ATTACK, "--method", "idlg", "--defence", "pruning,share=0.9").stdout
    rules = result_of("labels", "--dataset", "digits", "--images", 10, "--defence", "noise,level=1")["rules"]
    assert set(rules) == {"bias_sign", "bias_min", "row_sum"}
    assert rules["bias_sign"]["accuracy"] < rules["row_sum"]["accuracy"]


def test_a_picture_of_another_size_is_refused_with_both_sizes(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (20, 10)).save(path)
    answer = run(*ATTACK, "--method", "idlg", "--image", path, "--label", 1)
    assert answer.exit_code == 2
    assert "20 x 10 pixels, but the network takes 8 x 8" in answer.stderr
