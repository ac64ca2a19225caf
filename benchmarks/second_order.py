"""Levenberg-Marquardt beside iDLG: the time of an image, and what the parts of a step take.

All is on one thread, and both ways are run in turn: a ratio compares what was measured side by side. Images
are random; so are the networks, U(-0.5, 0.5).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks import timing
from benchmarks.goals import lasting
from benchmarks.problems import Problem
from wdlg import compiled
from wdlg.attacks import IDLG, LM, Optimised, reconstruct
from wdlg.attacks.objective import Objective
from wdlg.networks.jacobian import normal_matrices
from wdlg.optimizers import LevenbergMarquardt
from wdlg.optimizers.levenberg_marquardt import BEND, MATRIX, SOLUTION, solve

ROUNDS = 3
IDLG_EVALUATIONS = 6000
MEASURED_EVALUATIONS = 300
"""Of iDLG, from which the time of all is told: each takes as long as the next."""

PICTURES = {
    "28x28, 10 classes (as MNIST)": {"side": 28, "channels": 1, "classes": 10},
    "32x32x3, 100 classes (as CIFAR-100)": {"side": 32, "channels": 3, "classes": 100},
    "32x32x3, 5,749 classes (as LFW)": {"side": 32, "channels": 3, "classes": 5749},
}
METHODS = {
    "double": LM,
    "single": replace(LM, optimizer=LevenbergMarquardt(precision="single")),
}


def measure(say: Callable[[str], None], rounds: int = ROUNDS) -> dict[str, Any]:
    """For each kind of image: seconds of both attacks, their ratio, iterations, and exchange rates."""
    return {
        name: timing.one_thread(
            lambda name=name, settings=settings: _of_pictures(name, settings, say, rounds)
        )
        for name, settings in PICTURES.items()
    }


def _of_pictures(
    name: str, settings: dict[str, int], say: Callable[[str], None], rounds: int
) -> dict[str, Any]:
    lengthy = lasting(IDLG, MEASURED_EVALUATIONS)
    _seconds(lasting(IDLG, 2), Problem(1, **settings, seed=rounds))
    for method in METHODS.values():  # compiles
        _seconds(
            replace(method, evaluations=2 * method.optimizer.cost(3072)), Problem(1, **settings, seed=rounds)
        )
    times: dict[str, list[float]] = {way: [] for way in ("iDLG", *METHODS)}
    iterations: dict[str, list[int]] = {way: [] for way in METHODS}
    for seed in range(rounds):
        problem = Problem(1, **settings, seed=seed)
        seconds, _ = _seconds(lengthy, problem)
        times["iDLG"].append(seconds * IDLG_EVALUATIONS / MEASURED_EVALUATIONS)
        for way, method in METHODS.items():
            seconds, made = _seconds(method, problem)
            times[way].append(seconds)
            iterations[way].append(made)
    found: dict[str, Any] = {"seconds": {way: asdict(timing.Spread.of(each)) for way, each in times.items()}}
    found["times iDLG's 6,000 evaluations"] = {
        way: asdict(timing.Spread.of([a / b for a, b in zip(times[way], times["iDLG"], strict=True)]))
        for way in METHODS
    }
    found["iterations"] = {way: statistics.median(each) for way, each in iterations.items()}
    one = statistics.median(times["iDLG"]) / IDLG_EVALUATIONS
    found["in evaluations"] = {way: _exchange(settings, way, one) for way in METHODS}
    for way in METHODS:
        ratio, worth = found["times iDLG's 6,000 evaluations"][way], found["in evaluations"][way]
        say(
            f"{name}, {way}: {statistics.median(times[way]):.2f} s in {found['iterations'][way]:g} "
            f"iterations, {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) times iDLG's "
            f"6,000 evaluations of {1000 * one:.3f} ms; a matrix takes {worth['matrix']:.0f}, a solution "
            f"{worth['solution']:.0f} and the bend of a path {worth['bend']:.1f}, counted as "
            f"{worth['matrix counted']}, {worth['solution counted']} and {worth['bend counted']}"
        )
    return found


def _seconds(method: Optimised, problem: Problem) -> tuple[float, int]:
    """Time of an attack, and its iterations."""
    start = problem.start()
    started = time.perf_counter()
    found = reconstruct(method, start.observation, start.dummy_images)
    return time.perf_counter() - started, int(found.iterations)


def _exchange(settings: dict[str, int], way: str, one: float) -> dict[str, float]:
    """The parts of a step in evaluations of so many seconds, and as counted."""
    dtype = {"double": torch.float64, "single": torch.float32}[way]
    start = Problem(1, **settings).start()
    seen = start.observation
    parameters, images = seen.parameters.in_precision(dtype), start.dummy_images.to(dtype)
    target = torch.eye(settings["classes"], dtype=dtype)[:1]
    matrices, solutions, bends = [], [], []
    objective = Objective(seen, LM.label_rule, LM.loss)
    doubles = seen.parameters.in_precision(torch.float64), seen.gradient.in_precision(torch.float64)
    x = objective.variables(start).double()
    with compiled.one_blas_thread():
        for _ in range(ROUNDS):
            started = time.perf_counter()
            (matrix,) = normal_matrices(seen.network, parameters, images, target)
            between = time.perf_counter()
            solve(matrix, float(matrix.diagonal().max()), torch.ones(len(matrix), dtype=torch.float64))
            matrices.append(between - started)
            after = time.perf_counter()
            solutions.append(after - between)
            objective.bend(x, target.double(), *doubles, torch.ones_like(x))
            bends.append(time.perf_counter() - after)
    count = len(matrix)
    return {
        "matrix": statistics.median(matrices) / one,
        "solution": statistics.median(solutions) / one,
        "bend": statistics.median(bends) / one,
        "matrix counted": round(MATRIX * count),
        "solution counted": round(SOLUTION * count),
        "bend counted": BEND,
    }
