"""The kept results of the Flower round agree with the private images; `make federated` runs it anew."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
KEPT = json.loads((ROOT / "benchmarks" / "federated.json").read_text())
ROWS = {row["setting"]: row for row in KEPT["rows"]}


def pictures(setting):
    return np.array(ROWS[setting]["pictures"]).reshape(-1, 8, 8)


@pytest.mark.parametrize("setting", ["one step", "five steps, known"])
def test_what_is_recovered_is_the_private_digit_to_the_last_grey_level(setting, digits):
    assert np.array_equal(pictures(setting), digits.images[: KEPT["clients"], :, :, 0])
    assert max(ROWS[setting]["mse"]) < 1e-4


def test_an_error_is_that_of_its_picture_unless_that_was_cut_off_at_black_or_white(digits):
    truth = digits.images[: KEPT["clients"], :, :, 0] / 255
    for setting, row in ROWS.items():
        shown = np.square(pictures(setting) / 255 - truth).mean((1, 2))
        assert (shown <= np.array(row["mse"]) + 1e-3).all(), setting


def test_a_defended_message_gives_no_digit_away():
    for setting in ("one step, defended", "one step, defence known"):
        assert min(ROWS[setting]["mse"]) > 0.01
    assert min(ROWS["five steps, taken for one"]["mse"]) > 100 * max(ROWS["one step"]["mse"])


def test_the_version_of_flower_is_the_locked_one():
    lock = (ROOT / "requirements-federated.lock").read_text()
    assert f"\nflwr=={KEPT['flwr']}\n" in lock
    assert f"\ntorch=={KEPT['torch'].split('+')[0]}\n" in lock
