"""Our drawing of the method, the paper's Figure 1."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from wdlg.figures.look import Picture


def method_diagram() -> Figure:
    """Our drawing of the method (the paper's Figure 1): participant, shared gradient, attacker's loop."""
    figure = Picture(figsize=(8.2, 3.7))
    axes = figure.subplots()
    axes.set(xlim=(0, 8.2), ylim=(-0.75, 3.2))
    axes.axis("off")
    private, public, attacker = "#FBE3D0", "#E6E6E6", "#D3EBE1"
    columns, (top, middle, bottom) = (0.95, 3.05, 5.15, 7.25), (2.5, 1.35, 0.2)
    boxes = (
        (columns[0], top, "private image x,\nlabel y", private),
        (columns[1], top, "network F(x; W)", public),
        (columns[2], top, "shared gradient g", public),
        (columns[2], middle, "label: index of the\nnegative bias entry", attacker),
        (columns[0], bottom, "dummy image x'", attacker),
        (columns[1], bottom, "network F(x'; W)", public),
        (columns[2], bottom, "dummy gradient g'", attacker),
        (columns[3], bottom, "matching loss\nW(g', g)", attacker),
    )
    for x, y, text, color in boxes:
        axes.add_patch(
            FancyBboxPatch((x - 0.8, y - 0.3), 1.6, 0.6, boxstyle="round,pad=0.03", fc=color, ec="black")
        )
        axes.text(x, y, text, ha="center", va="center", fontsize=9)
    across, down = 0.84, 0.34
    arrows = [
        *(
            ((left + across, y), (right - across, y))
            for y in (top, bottom)
            for left, right in pairwise(columns[:3])
        ),
        ((columns[2] + across, bottom), (columns[3] - across, bottom)),
        ((columns[2], top - down), (columns[2], middle + down)),
        ((columns[2], middle - down), (columns[2], bottom + down)),
    ]
    for start, end in arrows:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color="black"))
    elbow: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 13,
        "color": "black",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.add_patch(
        FancyArrowPatch(
            (columns[2] + across, top),
            (columns[3], bottom + down),
            connectionstyle="angle,angleA=0,angleB=90,rad=4",
            **elbow,
        )
    )
    axes.add_patch(
        FancyArrowPatch(
            (columns[3], bottom - down),
            (columns[0], bottom - down),
            connectionstyle="bar,fraction=-0.05",
            **elbow,
        )
    )
    axes.text(
        4.1, -0.6, "x' ← x' − η ∇W(g', g)", ha="center", va="center", fontsize=9, backgroundcolor="white"
    )
    for y, who in ((top, "participant"), (bottom, "attacker")):
        axes.text(0.15, y + 0.5, who, fontsize=10, weight="bold", va="center")
    return figure
