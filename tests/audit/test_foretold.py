"""The kept studies of what audits foretell: areas are those of their rows, and the figure counts them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from wdlg.evaluation import recovered
from wdlg.figures import foretold

KEPT = Path(__file__).parents[2] / "benchmarks"
STUDIES = {name: json.loads((KEPT / name).read_text()) for name in ("audited.json", "audited-parts.json")}


def area(rows, score):
    """Of all pairs of one that was recovered and one that was not: how often the first scores higher."""
    pairs = [
        (score(one) > score(other)) + 0.5 * (score(one) == score(other))
        for one in rows
        if one["recovered"]
        for other in rows
        if not other["recovered"]
    ]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("name", STUDIES)
def test_the_area_is_the_share_of_pairs_in_the_right_order(name):
    study = STUDIES[name]
    assert study["auc"] == pytest.approx(area(study["rows"], lambda one: one["predicted"]))
    for one in study["rows"]:
        assert one["recovered"] == (one["mse"] is not None and bool(recovered(one["mse"])))
        assert one["predicted"] == one["directions"] / 64
        assert one["directions"] <= one["rank"] <= 64


def test_the_area_of_the_spectrum_ranks_messages_without_full_rank_last():
    study = STUDIES["audited-parts.json"]

    def score(one):
        return float("-inf") if one["least_mse"] is None else -one["least_mse"]

    assert study["auc_spectrum"] == pytest.approx(area(study["rows"], score))
    whole = [one for one in study["rows"] if one["part"] == "whole"]
    assert study["auc_spectrum_whole"] == pytest.approx(area(whole, score))
    assert all((one["least_mse"] is None) == (one["rank"] < 64) for one in study["rows"])


def test_the_figure_counts_what_it_draws():
    rows = pd.DataFrame(
        {
            "part": ["whole", "whole", "last layer", "last layer"],
            "predicted": [1.0, 1.0, 0.5, 0.25],
            "mse": [1e-9, 0.3, float("nan"), 1e5],
        }
    )
    figure = foretold(rows)
    assert figure.told == (
        "Messages recovered, by what is sent: whole, 1 of 2 with all directions; "
        "last layer, 0 of 2 with fewer."
    )
    drawn = [line.get_ydata() for line in figure.axes[0].lines]
    assert list(drawn[0]) == [1e-9, 0.3]
    assert list(drawn[1]) == [100, 100]  # no number, and one beyond the frame, stand at its edge
    assert not foretold(rows[:0]).axes
