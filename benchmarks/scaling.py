"""Speed by batch, classes, image side and processes, and what the machine could do at best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks import timing
from benchmarks.goals import BATCH, lasting
from benchmarks.problems import Problem
from wdlg.attacks import IDLG, WDLG
from wdlg.networks import LeNet
from wdlg.networks.convolution import KERNEL
from wdlg.networks.lenet import CHANNELS

EVALUATIONS = 150
"""More than the 100 pairs that L-BFGS remembers, so that its full cost is in the measurement."""


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """Gradient evaluations a second of iDLG (and WDLG), one thread, and the machine's limits."""
    idlg, wdlg = lasting(IDLG, EVALUATIONS), lasting(WDLG, EVALUATIONS)
    result: dict[str, Any] = {}

    def sweep(name: str, method: Any, problems: dict[int, tuple[Problem, int]]) -> None:
        result[name] = {}
        for value, (problem, batch_size) in problems.items():
            result[name][str(value)] = round(timing.one_thread_rate(method, problem, batch_size), 1)
            say(f"{name} {value}: {result[name][str(value)]:.0f} gradient evaluations a second")

    timing.one_thread_rate(idlg, Problem(BATCH), BATCH)
    batches = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    sweep("batch, iDLG", idlg, {size: (Problem(size), size) for size in batches})
    sweep("batch, WDLG", wdlg, {size: (Problem(size), size) for size in batches[:-2]})
    classes = (10, 100, 1000, 5749)
    for name, method in (("iDLG", idlg), ("WDLG", lasting(WDLG, 20))):
        sweep(
            f"classes, {name}",
            method,
            {count: (Problem(10, classes=count, shared=True), 10) for count in classes},
        )
    sweep("side, iDLG", idlg, {side: (Problem(BATCH, side=side), BATCH) for side in (28, 32, 64)})
    result["processes, iDLG"] = {}
    for processes in range(1, torch.multiprocessing.cpu_count() + 1):
        problems = [Problem(BATCH, seed=seed) for seed in range(2 * processes)]
        speed = timing.engine_rate(idlg, problems, batch_size=BATCH, processes=processes)
        result["processes, iDLG"][str(processes)] = round(speed, 1)
        say(f"processes {processes}: {speed:.0f} gradient evaluations a second")
    result["limits"] = limits()
    say(", ".join(f"{name} {value:.3g}" for name, value in result["limits"].items()))
    return result


def limits() -> dict[str, float]:
    """What one core can do, and what one gradient evaluation of iDLG needs (32x32x3, 100 classes)."""
    torch.set_num_threads(1)
    matrix = torch.randn(1024, 1024)
    # By torch's library and by numpy's: on some processors one of them is at half speed.
    with threadpool_limits(1):
        flops = max(
            timing.rate(lambda one=one: (one @ one, 2 * 1024**3)[1])
            for one in (matrix, matrix.numpy())
            for _ in range(10)
        )
    block = torch.randn(2**26)
    bandwidth = max(timing.rate(lambda: (block.sum(), 4 * len(block))[1]) for _ in range(5))
    network = LeNet((3, 32, 32), 100)
    needed_flops = operations(network)
    needed_bytes = lbfgs_bytes(network)
    return {
        "matrix product, operations a second": flops,
        "memory, bytes a second": bandwidth,
        "operations for one evaluation": needed_flops,
        "bytes of L-BFGS for one evaluation": needed_bytes,
        "evaluations a second at these limits": 1 / (needed_flops / flops + needed_bytes / bandwidth),
    }


def operations(network: LeNet) -> float:
    """Multiplications and additions in the matrix products of one loss and its derivative by the image."""
    total = 0.0
    for layer, convolution in enumerate(network.convolutions):
        product = 2 * math.prod(convolution.output_size) * CHANNELS * convolution.channels * KERNEL**2
        # Sums, weight gradient, its derivative by L, by the patches (with the sums'); below the first layer
        # there is nothing to hand down, and nothing that comes up.
        total += product * (5 if layer == 0 else 7)
    return total + 4 * 2 * network.classes * network.features


def lbfgs_bytes(network: LeNet, history: int = 100) -> float:
    """What a step reads: every remembered pair, once for the products with the gradient, once for the sum."""
    return 2 * 2 * history * math.prod(network.image_shape) * 4
