"""Our drawing of the method, the paper's Figure 1."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from wdlg.figures.look import WIDTH, Picture


def method_diagram() -> Picture:
    """Our drawing of the method (the paper's Figure 1): participant, shared gradient, attacker's loop.

    Both go downwards side by side, so that a phone shows the letters in a size that can be read.
    """
    figure = Picture(figsize=(WIDTH, 4.6))
    axes = figure.subplots()
    axes.set(xlim=(0, WIDTH), ylim=(0.5, 5.1))
    axes.axis("off")
    private, public, attacker = "#FBE3D0", "#E6E6E6", "#D3EBE1"
    left, right, levels = 1.05, 3.35, (4.4, 3.4, 2.4, 1.35, 0.8)
    boxes = (
        (left, levels[0], "private image x,\nlabel y", private),
        (left, levels[1], "network F(x; W)", public),
        (left, levels[2], "shared gradient g", public),
        (left, levels[3], "label: index of the\nnegative bias entry", attacker),
        (right, levels[0], "dummy image x'", attacker),
        (right, levels[1], "network F(x'; W)", public),
        (right, levels[2], "dummy gradient g'", attacker),
        (right, levels[3], "matching loss\nW(g', g)", attacker),
    )
    wide, high = 0.85, 0.28
    for x, y, text, color in boxes:
        corner = (x - wide, y - high)
        style = "round,pad=0.03"
        axes.add_patch(FancyBboxPatch(corner, 2 * wide, 2 * high, boxstyle=style, fc=color, ec="black"))
        axes.text(x, y, text, ha="center", va="center", fontsize=10)
    below, beside = high + 0.04, wide + 0.04
    arrows = [
        *(
            ((x, upper - below), (x, lower + below))
            for x in (left, right)
            for upper, lower in pairwise(levels[:4])
        ),
        ((left + beside, levels[2] - 0.1), (right - beside, levels[3] + 0.1)),
        ((left + beside, levels[3] + 0.1), (right - beside, levels[2] - 0.1)),
    ]
    for start, end in arrows:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color="black"))
    axes.add_patch(
        FancyArrowPatch(
            (right + beside, levels[3]),
            (right + beside, levels[0]),
            connectionstyle="bar,fraction=0.1",
            arrowstyle="-|>",
            mutation_scale=13,
            color="black",
        )
    )
    axes.text(right, levels[4], "x' ← x' − η ∇W(g', g)", ha="center", va="center", fontsize=10)
    for x, who in ((left, "participant"), (right, "attacker")):
        axes.text(x, levels[0] + 0.5, who, fontsize=11, weight="bold", ha="center", va="center")
    return figure
