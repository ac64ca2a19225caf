"""Gradients to look at: one neuron worked by hand, and all entries of a gradient as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from wdlg.figures.images import show_image
from wdlg.figures.look import LOOKS, WIDTH, Picture

BELOW, ABOVE = (0, 114, 178), (213, 94, 0)
"""Colours of entries below and above zero, as red, green and blue from 0 to 255 (Okabe and Ito's)."""


def heat_map(parts: Sequence[np.ndarray], *, columns: int | None = None) -> np.ndarray:
    """The entries of a gradient as the pixels of a picture (3, rows, columns): blue below zero, orange above.

    The entries stand in the order in which they are sent, row by row. Each part is in a unit of its own, its
    largest entry, and the colour is as strong as the square root of the entry: small ones are seen, too.

    Args:
        parts: gradients by the weights and biases, in any shapes.
        columns: of the picture; None for one as high as it is wide.

    >>> heat_map([np.array([[-4.0, 0.0], [1.0, 4.0]])]).shape
    (3, 2, 2)
    """
    shares = []
    for part in parts:
        entries = np.asarray(part, dtype=float).ravel()
        largest = np.abs(entries).max(initial=0)
        shares.append(np.sign(entries) * np.sqrt(np.abs(entries) / (largest or 1)))
    share = np.concatenate(shares)
    columns = columns or int(np.ceil(np.sqrt(len(share))))
    rows = -(-len(share) // columns)
    share = np.pad(share, (0, rows * columns - len(share))).reshape(rows, columns)
    colour = np.where(share[..., None] < 0, BELOW, ABOVE) / 255
    return (1 + np.abs(share)[..., None] * (colour - 1)).transpose(2, 0, 1)


def beside_gradients(image: np.ndarray, gradients: Mapping[str, np.ndarray]) -> Picture:
    """A private picture (C, H, W), and beside it gradients as pictures (3, rows, columns) by title."""
    figure = Picture(figsize=(min(2.1 * (1 + len(gradients)), WIDTH), 2.0))
    panels = figure.subplots(1, 1 + len(gradients), squeeze=False)[0]
    for axes, (title, picture) in zip(panels, {"private picture": image, **gradients}.items(), strict=True):
        show_image(axes, picture)
        axes.set_title(title.replace(" of ", "\nof "), fontsize="small")
        for spine in axes.spines.values():
            spine.set(visible=True, color="#888888")
    return figure


def hand_neuron(
    pixels: Sequence[float], weights: Sequence[float], bias: float, *, score: float, gradient: Sequence[float]
) -> Picture:
    """A neuron and its pixels, drawn: values on the way to the score, and each weight's gradient below it.

    Args:
        pixels: x, from 0 to 1.
        weights: one for each pixel.
        bias: b.
        score: what the neuron says.
        gradient: by the weights, and last by the bias.
    """
    figure = Picture(figsize=(4.0, 0.7 * len(weights) + 0.9))
    axes = figure.subplots()
    axes.set(xlim=(-0.5, 4.8), ylim=(-0.6, len(weights) + 0.7), aspect="equal")
    axes.axis("off")
    middle = len(weights) / 2
    orange = LOOKS["iDLG"].color
    end = (3.55, middle)
    starts = [len(weights) - number for number in range(len(weights))]
    for number, (pixel, height) in enumerate(zip(pixels, starts, strict=True), start=1):
        axes.add_patch(Rectangle((-0.4, height - 0.4), 0.8, 0.8, facecolor=str(pixel), edgecolor="black"))
        ink = "black" if pixel > 0.5 else "white"
        axes.text(0, height, f"$x_{number}$\n{pixel:.3g}", ha="center", va="center", color=ink)
    axes.text(0, 0, "1", ha="center", va="center")
    names = [*(f"w_{number + 1}" for number in range(len(weights))), "b"]
    values = zip(names, [*weights, bias], gradient, [*starts, 0], strict=True)
    for name, value, slope, height in values:
        start = (0.45, height)
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="->", mutation_scale=12, color="#555555"))
        x, y = 1.55, height + (middle - height) * (1.1 / 3.1)
        text = f"${name}$ = {value:.3g}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(x, y + 0.02, text, ha="center", va="bottom", fontsize="small", bbox=box)
        axes.text(
            x, y, f"gradient {slope:.3g}", ha="center", va="top", fontsize="small", color=orange, bbox=box
        )
    axes.add_patch(Circle((4.1, middle), 0.55, facecolor="white", edgecolor="black"))
    axes.text(4.1, middle, f"$s$\n{score:.3g}", ha="center", va="center")
    return figure
