"""What a defence costs: no image plays two parts, and a leak is what attack and bound say of a message."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from wdlg.attacks.most_probable import NormalPrior
from wdlg.data import Sample
from wdlg.errors import InputError
from wdlg.figures.price import accuracy_by_leak
from wdlg.limits import epsilon, limits
from wdlg.networks import LeNet
from wdlg.sharing.defences import ClippedNoise, LaplaceNoise, Noise, Pruning, parse
from wdlg.sharing.federated import FedAvg
from wdlg.study import price
from wdlg.training import SecureSum, Training, privacy_loss


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def leak_of(training, digits, seed=0):
    parts = price.split(digits)
    network = LeNet((1, 8, 8), 10, activation="tanh")
    weights = network.initial_parameters(generator=stream(seed), distribution="torch")
    images, labels = (one[: training.images] for one in parts.private)
    prior = NormalPrior.of(parts.training[0])
    found = price.leak(training, network, weights, images, labels, prior=prior, stream=stream(1))
    return found, limits(network, weights, images[0], int(labels[0]))


def test_no_image_is_in_two_parts_and_all_are_used(digits):
    parts = price.split(digits)
    counts = [len(images) for images, _ in (parts.training, parts.held_out, parts.private)]
    assert counts == [800, 977, 20]
    each = torch.cat([images for images, _ in (parts.private, parts.held_out, parts.training)])
    whole = digits.tensor()
    assert torch.equal(each.flatten(1).sum(1).sort().values, whole.flatten(1).sum(1).sort().values)
    assert torch.equal(parts.training[0], whole[200:1000])
    assert torch.equal(parts.held_out[0], torch.cat((whole[20:200], whole[1000:])))
    assert parts.held_out[1].tolist() == [*digits.labels[20:200], *digits.labels[1000:]]
    assert torch.equal(parts.private[0], digits.tensor()[:20])


def test_a_sample_that_is_too_small_is_refused(faces):
    with pytest.raises(InputError, match="^sample faces holds 200 images, but training needs at least 1000"):
        price.split(faces)
    assert isinstance(faces, Sample)


def test_the_name_of_an_offer_is_its_defence():
    assert set(price.FAMILIES) == {name.partition(",")[0] for name in price.OFFERS}
    for name, training in price.OFFERS.items():
        if name.partition(",")[0] not in ("dp_sgd", "local_steps", "batch", "secure_sum"):
            assert parse(name) == training.defence
    assert price.OFFERS["dp_sgd,clip=1,multiplier=2"].defence == SecureSum(1.0, 2.0)
    assert price.OFFERS["local_steps,steps=5"].sharing == FedAvg(0.1, 5)


def test_a_rate_is_that_of_the_data_set_and_local_steps_are_as_long_as_one():
    assert price.training_of("none", "digits") == Training()
    assert price.training_of("none", "fashion_mnist") == Training(rate=0.1)
    assert price.training_of("local_steps,steps=5", "fashion_mnist").sharing == FedAvg(0.02, 5)


def test_a_training_that_diverges_guesses(digits, monkeypatch):
    monkeypatch.setitem(price.OFFERS, "none", Training(SecureSum(1e308, 1e3), epochs=1))
    row = price.measure(digits, "none", 0, attacked=False)
    assert row["accuracy"] == 0.1


def test_epsilons_are_those_of_the_mechanism_that_who_sees_the_messages_meets():
    count = 800
    central, said = price.epsilon_of(Training(SecureSum(1.0, 2.0)), count)
    assert central == privacy_loss(2.0, 0.08, 250, price.DELTA).prv
    assert "250 steps" in said
    local, said = price.epsilon_of(Training(ClippedNoise(1.0, 0.5)), count)
    assert local == epsilon(0.5 / math.sqrt(20), price.DELTA)
    assert "20 messages" in said
    for without in (
        Training(),
        Training(Noise(1.0)),
        Training(SecureSum(1.0)),
        Training(ClippedNoise(1.0, 0.0)),
    ):
        value, said = price.epsilon_of(without, count)
        assert math.isnan(value)
        assert said == ""


def test_the_bound_of_laplace_noise_is_half_that_of_normal_noise(digits):
    normal, one = leak_of(Training(Noise(0.2)), digits)
    laplace, _ = leak_of(Training(LaplaceNoise(0.2)), digits)
    assert normal["bound"] == pytest.approx(one.bound(0.2))
    assert laplace["bound"] == pytest.approx(one.bound(0.2) / 2)
    assert normal["directions"] == one.directions(0.2)
    assert normal["relative_error"] == pytest.approx(0.2, rel=0.05)


def test_in_a_sum_one_message_is_hidden_by_the_noise_as_if_it_were_alone(digits):
    summed, one = leak_of(Training(SecureSum(0.5, 0.01)), digits)
    alone, _ = leak_of(Training(ClippedNoise(0.5, 0.01)), digits)
    assert summed == alone
    assert summed["bound"] == pytest.approx(one.bound(0.01 * math.sqrt(one.entries)))


def test_without_noise_directions_are_the_rank_of_what_is_sent(digits):
    whole, one = leak_of(Training(), digits)
    assert (whole["directions"], one.rank) == (64, 64)
    assert whole["likely"] < 1e-10
    assert math.isnan(whole["probable"])
    assert math.isnan(whole["bound"])
    few, _ = leak_of(Training(Pruning(0.9995)), digits)
    # Of each parameter the largest entry or two: some 15 numbers.
    assert 0 < few["directions"] < 20
    assert few["likely"] > 1e-3


def test_a_message_of_zeros_gives_nothing_away(digits):
    network = LeNet((1, 8, 8), 10, activation="tanh")
    weights = network.initial_parameters(generator=stream(), distribution="torch")
    *others, bias = weights.tensors
    saturated = replace(weights, tensors=(*others, bias + 1000.0 * torch.eye(10)[[0]]))
    parts = price.split(digits)
    image = parts.training[0][:1]
    prior = NormalPrior.of(parts.training[0])
    zero = torch.tensor([0])
    found = price.leak(Training(), network, saturated, image, zero, prior=prior, stream=stream())
    assert (found["bound"], found["directions"]) == (math.inf, 0)
    assert found["probable"] == pytest.approx(float((prior.mean - image).square().mean()))


def test_a_row_has_all_that_a_table_and_a_figure_take(digits, monkeypatch):
    brief = {
        "none": Training(epochs=2),
        "dp_sgd,clip=1,multiplier=1": Training(SecureSum(1.0, 1.0), epochs=2),
    }
    monkeypatch.setattr(price, "OFFERS", brief)
    rows = [price.measure(digits, name, seed, attacked=not seed) for name in brief for seed in range(2)]
    table = price.table(rows).set_index("family")
    assert table.loc["none", "seeds"] == 2
    assert table.loc["none", "messages"] == table.loc["none", "recovered"] == 2
    assert table.loc["none", "accuracy"] == np.mean([row["accuracy"] for row in rows[:2]])
    assert table.loc["dp_sgd", "recovered"] == 0
    assert table.loc["dp_sgd", "leak"] > 0.01 > table.loc["none", "leak"]
    assert table.loc["dp_sgd", "epsilon"] < 10
    assert rows[2]["statement"].startswith("epsilon = ")
    figure = accuracy_by_leak({"Digits": price.table(rows)})
    [axes] = figure.axes
    assert any(text.get_text().startswith("ε") for text in axes.texts)
    assert not accuracy_by_leak({}).axes


def test_a_data_set_in_one_line_counts_cheap_defences_and_those_that_hide():
    lines = pd.DataFrame(
        [
            ("mnist", "none", 0.9, 0.0, 2),
            ("mnist", "cheap and seen", 0.881, 0.0, 1),
            ("mnist", "cheap and hidden", 0.95, 1.0, 0),
            ("mnist", "dear", 0.88, 1.0, 0),
            ("mnist", "useless", 0.5, 1.0, 0),
            ("mnist", "not attacked", 0.9, math.nan, 0),
        ],
        columns=["dataset", "offer", "accuracy", "leak", "recovered"],
    )
    (row,) = price.by_dataset(lines).to_dict("records")
    assert row == {
        "dataset": "mnist", "accuracy": 0.9, "defences": 4, "cheap": 2, "cheap_seen": 1, "hiding": 2,
    }  # fmt: skip


def test_a_failed_attack_counts_and_a_message_that_was_not_attacked_does_not():
    leak = {"moment": "trained", "relative_error": 0.0, "bound": None, "directions": 1, "variance": 0.1}
    tried = [
        {**leak, "pixels": 64, "likely": 1e-9, "probable": None},
        {**leak, "pixels": 64, "likely": None, "probable": None},
    ]
    row = {"dataset": "digits", "offer": "none", "seed": 0, "accuracy": 0.5, "epsilon": None}
    too_large = {**leak, "pixels": price.MOST_PIXELS + 1, "likely": None, "probable": None}
    (line,) = price.table([{**row, "leaks": [*tried, too_large]}]).to_dict("records")
    assert (line["messages"], line["recovered"]) == (2, 1)
    assert line["trained"] == math.inf  # the median of a success and a failure
    (line,) = price.table([{**row, "leaks": [too_large]}]).to_dict("records")
    assert line["messages"] == 0
    assert math.isnan(line["leak"])


def test_what_json_cannot_hold_is_read_as_missing():
    leaks = [
        {"moment": moment, "pixels": 64, "relative_error": 0.0, "bound": None, "directions": -1,
         "likely": likely, "probable": None, "variance": 0.1}
        for moment, likely in (("untrained", 0.5), ("trained", 0.002))
    ]  # fmt: skip
    row = {
        "dataset": "digits",
        "offer": "noise,level=1",
        "seed": 0,
        "accuracy": 0.5,
        "epsilon": None,
        "leaks": leaks,
    }
    [line] = price.table([row]).to_dict("records")
    assert (line["leak"], line["recovered"], line["bound"]) == (0.002, 1, math.inf)
    assert math.isnan(line["epsilon"])
    assert math.isnan(line["directions"])
    [line] = price.table([row | {"offer": "pruning,share=0.5"}]).to_dict("records")
    assert math.isnan(line["bound"])
