"""A check lets through what it allows and answers everything else in one sentence that names the argument."""

import math

import numpy as np
import pytest
import torch

from wdlg.errors import (
    InputError,
    require_choice,
    require_count,
    require_flag,
    require_not_negative,
    require_positive,
)

CHECKS = {
    "choice": lambda value: require_choice("size", value, ("small", "large")),
    "choice among keys": lambda value: require_choice("size", value, {"small": 1, "large": 2}),
    "flag": lambda value: require_flag("size", value),
    "count": lambda value: require_count("size", value),
    "count below": lambda value: require_count("size", value, below=5),
    "positive": lambda value: require_positive("size", value),
    "not negative": lambda value: require_not_negative("size", value, or_infinite=True),
}
ODD = {
    "None": None,
    "a list": [1, 2],
    "a table": {"a": 1},
    "an array": np.arange(2000).reshape(2, 1000),
    "a tensor": torch.zeros(3, 3),
    "a long text": "no" * 5000,
    "not a number": math.nan,
    "a negative number": -1,
    "a complex number": 1j,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_any_wrong_value_ends_in_one_short_sentence(check, value):
    with pytest.raises(InputError) as refusal:
        check(value)
    message = str(refusal.value)
    assert message.startswith("size is ")
    assert "but must be" in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("check", [require_positive, require_not_negative])
def test_a_whole_number_that_no_float_reaches_is_not_finite(check):
    with pytest.raises(InputError, match=r"^size is 1000.*must be a finite number"):
        check("size", 10**400)


def test_what_is_allowed_comes_back_as_a_plain_python_value():
    assert require_choice("size", "small", ("small",)) == "small"
    assert require_flag("size", True) is True
    assert type(require_count("size", np.int64(3))) is int
    assert type(require_positive("size", np.float32(0.5))) is float
    assert require_not_negative("size", math.inf, or_infinite=True) == math.inf
