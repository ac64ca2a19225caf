"""Records of attacks: traces that lose nothing a figure needs, and pictures that come back as they were."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from wdlg.study.records import PICTURE_ITERATIONS, TRACE_POINTS, as_bytes, as_images, log_grid, values_at


@given(st.integers(1, 100_000))
def test_a_log_grid_ascends_from_the_first_to_the_last_evaluation(evaluations):
    grid = log_grid(evaluations).numpy()
    assert (grid[0], grid[-1]) == (0, evaluations - 1)
    assert (np.diff(grid) > 0).all()
    assert len(grid) <= TRACE_POINTS


def test_no_evaluation_no_grid():
    assert len(log_grid(0)) == 0


def test_values_are_those_last_seen_and_hold_after_the_end():
    one = {"trace_evaluation": [0, 1, 4], "trace_iteration": [0, 0, 2], "trace_mse": [5.0, 3.0, 2.0]}
    never = {name: [] for name in one}
    records = pd.DataFrame([{name: np.array(values) for name, values in run.items()} for run in (one, never)])
    found = values_at(records, "mse", np.arange(7), against="evaluation")
    assert found[0].tolist() == [5, 5, 3, 3, 3, 2, 2]
    assert np.isnan(found[1]).all()
    by_iteration = values_at(records, "mse", np.arange(5), against="iteration")
    # After one iteration, what iteration 0 saw last; what iteration 2 saw counts once it is done.
    assert by_iteration[0].tolist() == [5, 3, 3, 2, 2]


@given(st_numpy.arrays(np.uint8, (len(PICTURE_ITERATIONS), 3, 4, 5)))
def test_pictures_come_back_as_they_were(images):
    content = as_bytes(torch.from_numpy(images / 255))
    np.testing.assert_array_equal(as_images(content, (3, 4, 5)), images / 255)


@pytest.mark.parametrize(("value", "shown"), [(-3.0, 0), (7.0, 1), (float("nan"), 0), (float("inf"), 1)])
def test_what_is_no_picture_is_clamped_or_black(value, shown):
    content = as_bytes(torch.full((len(PICTURE_ITERATIONS), 1, 2, 2), value))
    assert (as_images(content, (1, 2, 2)) == shown).all()
