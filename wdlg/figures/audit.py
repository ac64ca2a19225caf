"""Figures of audits: whether what is foretold of a message is what an attack makes of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wdlg.evaluation import SUCCESS
from wdlg.figures.look import LOOKS, WIDTH, Picture, empty, legend_below, listed

WORST = 1e2
"""Errors beyond this are drawn at it."""


def foretold(rows: pd.DataFrame) -> Picture:
    """What an attack made of messages, against the share of the image's directions that they hold.

    Args:
        rows: one for each message, with part (what of the gradient is sent), predicted (share of directions
            told, 0 to 1) and mse (of the attack; NaN where the message was a gradient of zero).
    """
    if rows.empty:
        return empty()
    figure = Picture(figsize=(WIDTH, 4.2))
    axes = figure.subplots()
    drawn = np.random.default_rng(0)
    told = []
    for look, (part, some) in zip(LOOKS.values(), rows.groupby("part", sort=False), strict=False):
        aside = drawn.uniform(-0.015, 0.015, len(some))
        error = some["mse"].fillna(WORST).clip(upper=WORST)
        axes.plot(
            some["predicted"] + aside,
            error,
            linestyle="none",
            marker=look.marker,
            markersize=5,
            color=look.color,
            markerfacecolor="none",
            label="whole gradient" if part == "whole" else str(part),
        )
        found, full = some["mse"] < SUCCESS, some["predicted"] == 1
        counts = [
            f"{int(found[those].sum())} of {int(those.sum())} with {words}"
            for those, words in ((full, "all directions"), (~full, "fewer"))
            if those.any()
        ]
        told.append(f"{part}, {listed(counts)}")
    axes.axhline(SUCCESS, color="0.3", linestyle=":", label=f"recovered: below {SUCCESS:g}")
    axes.set(yscale="log", xlabel="share of directions told", ylabel="MSE of Levenberg-Marquardt")
    axes.set_xlim(-0.05, 1.05)
    legend_below(figure, 2)
    figure.told = f"Messages recovered, by what is sent: {listed(told, between='; ')}."
    return figure
