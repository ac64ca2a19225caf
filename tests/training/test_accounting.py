"""Epsilons of a training: compared with closed forms, and never printed without what they depend on."""

import math
import sys

import pytest

from wdlg.errors import InputError
from wdlg.limits import epsilon
from wdlg.training import privacy_loss


@pytest.mark.parametrize(("multiplier", "steps"), [(1.0, 1), (3.0, 1), (4.0, 16), (8.0, 100)])
def test_without_sampling_it_is_the_exact_epsilon_of_one_release_with_all_information(multiplier, steps):
    """k steps are one with the multiplier over sqrt(k); PRV is an upper end within 0.01 and a little."""
    exact = epsilon(multiplier / math.sqrt(steps), 1e-5)
    found = privacy_loss(multiplier, 1.0, steps, 1e-5)
    assert exact <= found.prv <= exact + 0.025
    assert found.prv < found.rdp < 1.3 * exact + 0.1


def test_sampling_helps_and_more_steps_or_less_noise_hurt():
    plain = privacy_loss(1.0, 0.08, 100, 1e-3)
    assert plain.prv < privacy_loss(1.0, 1.0, 100, 1e-3).prv / 4
    assert plain.prv < privacy_loss(1.0, 0.08, 200, 1e-3).prv
    assert plain.prv < privacy_loss(0.8, 0.08, 100, 1e-3).prv
    assert plain.prv < plain.rdp


def test_an_epsilon_is_told_with_all_that_it_depends_on():
    said = privacy_loss(1.0, 0.08, 250, 1e-3).statement("image")
    for part in ("PRV", "RDP", "delta = 0.001", "adding or removing one image", "Poisson lots with rate 0.08",
                 "250 steps", "multiplier 1", "trying several trainings is not included"):  # fmt: skip
        assert part in said
    assert "everybody every time" in privacy_loss(5.0, 1.0, 2, 1e-3).statement()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0.0, 0.1, 1, 1e-5), "^multiplier is 0.0"),
        ((1.0, 1.1, 1, 1e-5), "^sample_rate is 1.1, but must be above 0 and at most 1"),
        ((1.0, 0.1, 0, 1e-5), "^steps is 0"),
        ((1.0, 0.1, 1, 1.0), "^delta is 1.0, but must be above 0 and below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers, message):
    with pytest.raises(InputError, match=message):
        privacy_loss(*numbers)


def test_without_opacus_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(InputError, match="^opacus is not installed, but must be for an epsilon: pip install"):
        privacy_loss(1.0, 0.1, 1, 1e-5)
