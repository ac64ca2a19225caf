"""How fast the engine is: measured goals, speed against size, and the limits of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from wdlg.figures.look import LOOKS, WIDTH, Picture, listed

NEUTRAL = "#555555"


def speed_goals(goals: Sequence[Mapping[str, Any]]) -> Picture:
    """Measured ratios with their spread over rounds, each relative to its goal.

    Args:
        goals: entries of ``benchmarks/latest.json``.
    """
    # A name above its marker, not beside it: so a phone has the whole width for either.
    figure = Picture(figsize=(WIDTH, 0.62 * len(goals) + 0.9))
    axes = figure.subplots()
    missed = []
    axes.axvline(1, color="black", linewidth=1)
    for place, goal in enumerate(goals):
        # Memory should be small: turn it over, so that right is better everywhere.
        values = [goal[name] / goal["at_least"] for name in ("ratio", "low", "high", "aim")]
        if goal["smaller_is_better"]:
            values = [1 / value for value in values]
        middle, low, high, aim = values
        look = LOOKS["WDLG"] if middle >= 1 else LOOKS["iDLG"]
        spread = [[abs(middle - min(low, high))], [abs(max(low, high) - middle)]]
        axes.errorbar(middle, place, xerr=spread, color=look.color, marker=look.marker, capsize=3)
        axes.plot(aim, place, marker="|", markersize=14, color=NEUTRAL, linestyle="none")
        name = f"{goal['name']}: {goal['ratio']:.3g}"
        axes.text(
            0.01, place - 0.4, name, transform=axes.get_yaxis_transform(), va="center", fontsize="small"
        )
        if middle < 1:
            missed.append(goal["name"])
    axes.set(yticks=[], ylim=(-0.75, len(goals) - 0.5))
    axes.set(xscale="log", xlabel="measured / goal")
    _plain_numbers(axes)
    axes.invert_yaxis()
    reached = f"{len(goals) - len(missed)} of {len(goals)} measurements reach their goal"
    figure.told = f"{reached}{'; not so: ' + listed(missed) if missed else ''}."
    return figure


def speed_scaling(scaling: Mapping[str, Mapping[str, float]]) -> Picture:
    """Gradient evaluations a second against batch size, classes, image side and processes.

    Args:
        scaling: ``benchmarks/scaling.json``.
    """
    figure = Picture(figsize=(WIDTH, 5.2))
    panels = {
        "batch": "attacks in the batch",
        "classes": "classes\n(10 attacks share a network)",
        "side": "image side in pixels",
        "processes": "processes of one thread",
    }
    told = []
    for axes, (panel, label) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for method in ("iDLG", "WDLG"):
            if f"{panel}, {method}" in scaling:
                sizes, speeds = zip(*scaling[f"{panel}, {method}"].items(), strict=True)
                look = LOOKS[method]
                axes.plot(
                    [int(size) for size in sizes],
                    speeds,
                    color=look.color,
                    linestyle=look.style,
                    marker=look.marker,
                    label=method,
                )
                ends = f"from {speeds[0]:,.0f} at {sizes[0]} to {speeds[-1]:,.0f} at {sizes[-1]}"
                told.append(f"{method} by {panel} {ends}")
        axes.set(xlabel=label, ylabel="evaluations / s")
        if panel in ("batch", "classes"):
            axes.set(xscale="log", yscale="log")
            axes.legend(fontsize="small")
        else:
            axes.set_ylim(0)
            axes.set_xticks([int(size) for size in sizes])
        _plain_numbers(axes)
    figure.told = f"Evaluations a second: {'; '.join(told)}."
    return figure


def speed_limits(limits: Mapping[str, float], measured: float) -> Picture:
    """Where the time of one gradient evaluation goes: what the machine's limits ask for, and the rest.

    Args:
        limits: of ``benchmarks/scaling.json``.
        measured: gradient evaluations a second of one attack's share in the best batch.
    """
    arithmetic = 1e6 * limits["operations for one evaluation"] / limits["matrix product, operations a second"]
    memory = 1e6 * limits["bytes of L-BFGS for one evaluation"] / limits["memory, bytes a second"]
    rest = 1e6 / measured - arithmetic - memory
    figure = Picture(figsize=(WIDTH, 2.6))
    axes = figure.subplots()
    start = 0.0
    parts = (
        ("matrix products at the machine's peak", arithmetic, LOOKS["DLG"].color, ""),
        ("L-BFGS memory at full bandwidth", memory, LOOKS["iDLG"].color, "//"),
        ("above these limits", rest, "#BBBBBB", ".."),
    )
    for name, width, color, hatch in parts:
        axes.barh(
            0, width, left=start, color=color, hatch=hatch, edgecolor="white", label=f"{name}: {width:.0f} µs"
        )
        start += width
    axes.set(xlabel="microseconds for one gradient evaluation\nof one attack (one core)", yticks=[])
    figure.legend(fontsize="small", loc="outside upper center")
    figure.told = f"Microseconds: {listed(f'{name} {width:.0f}' for name, width, _, _ in parts)}."
    return figure


def _plain_numbers(axes: Axes) -> None:
    """Ticks as 200 instead of a power of ten, also between the decades."""
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(plain)
            axis.set_minor_formatter(plain if len(axis.get_majorticklocs()) < 5 else NullFormatter())
            axis.set_tick_params(which="both", labelsize=8)
