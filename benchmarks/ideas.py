"""What single ideas of the engine bring: each against what it replaced, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from ot.batch import bregman_log_projection_batch
from torch import Tensor

from benchmarks import timing
from benchmarks.problems import Problem
from benchmarks.wasserstein import EPS, ITERATIONS, gradients
from wdlg import compiled
from wdlg.attacks import Start
from wdlg.losses import SquaredEuclidean
from wdlg.losses.sinkhorn import sinkhorn_plan
from wdlg.losses.wasserstein import row_costs
from wdlg.networks import ModuleNetwork, Network, Parameters
from wdlg.networks.convolution import KERNEL, PADDING, Convolution, torch_order
from wdlg.networks.output_layer import HAS_ONEDNN, OutputLayer
from wdlg.optimizers import LBFGS

ROUNDS = 15


@dataclass(frozen=True)
class Idea:
    """Two ways to the same result; calling one does the work once."""

    name: str
    ours: Callable[[], object]
    theirs: Callable[[], object]

    def measure(self) -> dict[str, object]:
        """How many times as fast ours is: median, least and greatest of the rounds."""
        spread, _, _ = timing.ratio(*(_speed(way) for way in (self.ours, self.theirs)), ROUNDS)
        return {
            "name": self.name,
            "ratio": round(spread.median, 2),
            "low": round(spread.low, 2),
            "high": round(spread.high, 2),
        }


def _speed(way: Callable[[], object]) -> Callable[[], float]:
    def once() -> int:
        way()
        return 1

    return lambda: timing.rate(once)


def ideas() -> list[Idea]:
    """All of them, with what they work on made ready."""
    stream = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream)

    layer = Convolution(12, 16, 16, 2)
    activations, outputs, matrix = normal(32, 12, 256), normal(32, 24, 64), normal(32, 24, 300)
    torch_matrix = torch_order(matrix)
    memory, row = normal(32, 100, 3072), normal(32, 1, 3072)
    column = row[:, 0, :, None]
    costs = row_costs(*gradients(32))[-2]
    found = [
        Idea(
            "both passes compiled, attack by attack, against batched products of torch", *_compiled_passes()
        ),
        Idea("a step of L-BFGS compiled, against batched products of torch", *_compiled_steps(memory)),
        Idea("both passes by hand in torch, against torch.func and autograd", *_both_passes()),
        Idea(
            "patches by copied windows, against unfold",
            lambda: layer.patches(activations),
            lambda: F.unfold(activations.unflatten(2, (16, 16)), KERNEL, padding=PADDING, stride=2),
        ),
        Idea(
            "derivative by the input by added windows, against fold",
            lambda: layer.transposed(outputs, matrix),
            lambda: F.fold(
                torch_matrix.transpose(1, 2) @ outputs, (16, 16), KERNEL, padding=PADDING, stride=2
            ),
        ),
        Idea(
            "batched product with a row on the left, against a column v[:, :, None] on the right",
            lambda: row @ memory.transpose(1, 2),
            lambda: memory @ column,
        ),
        Idea("L-BFGS in compact form in torch, against the two-loop recursion", *_directions(memory)),
        Idea(
            "Sinkhorn compiled, problem by problem, against batched products of torch (100 rows)",
            _transport(costs),
            _by_torch(_transport(costs)),
        ),
        Idea(
            "Sinkhorn by products with the scaled plan in torch, against POT's batched log domain (100 rows)",
            _by_torch(_transport(costs)),
            lambda: bregman_log_projection_batch(-costs / EPS, max_iter=ITERATIONS, tol=0.0),
        ),
    ]
    if HAS_ONEDNN:
        few, many = normal(10, 5749), normal(5749, 768)
        product = torch.ops.mkldnn._linear_pointwise
        layer_of_all = OutputLayer(many[None], normal(1, 5749))
        found += [
            Idea(
                "10 rows times a 5749 x 768 matrix by oneDNN, against @",
                lambda: product(few, many.T, None, "none", [], ""),
                lambda: few @ many,
            ),
            Idea(
                "the same with the matrix in oneDNN's own order, against torch's order",
                lambda: layer_of_all.times(few),
                lambda: product(few, many.T, None, "none", [], ""),
            ),
        ]
    return found


def _by_torch(way: Callable[[], object]) -> Callable[[], object]:
    """The same without compiled code."""

    def once() -> object:
        with compiled.turned_off():
            return way()

    return once


def _transport(costs: Tensor) -> Callable[[], object]:
    """Plans after as many iterations as are allowed."""
    return lambda: sinkhorn_plan(costs, eps=EPS, max_iterations=ITERATIONS, threshold=1e-300)


def _compiled_passes() -> tuple[Callable[[], object], Callable[[], object]]:
    """Matching loss and its derivative by the images."""
    start = Problem(32).start()
    target = F.one_hot(torch.arange(32), start.observation.network.classes).float()
    once = _derivative(start, start.observation.network, start.observation.parameters, target)
    return once, _by_torch(once)


def _compiled_steps(gradients_seen: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step from 100 remembered pairs of 32 attacks."""
    step, _, _, _ = _remembering(gradients_seen)
    return step, _by_torch(step)


def _derivative(start: Start, network: Network, weights: Parameters, target: Tensor) -> Callable[[], Tensor]:
    def once() -> Tensor:
        images = start.dummy_images.clone().requires_grad_()
        dummy = network.gradient(weights, images, target)
        return torch.autograd.grad(SquaredEuclidean()(dummy, start.observation.gradient).sum(), images)[0]

    return once


def _both_passes() -> tuple[Callable[[], object], Callable[[], object]]:
    """Matching loss and its derivative by the images, by hand and by torch."""
    start = Problem(32).start()
    lenet, parameters = start.observation.network, start.observation.parameters
    general = ModuleNetwork(lenet.as_module(parameters), lenet.image_shape)
    shapes = [tensor.shape[1:] for tensor in general.parameters().tensors]
    same = Parameters(
        tuple(tensor.reshape(32, *shape) for tensor, shape in zip(parameters.tensors, shapes, strict=True))
    )
    target = F.one_hot(torch.arange(32), lenet.classes).float()
    ways = _derivative(start, lenet, parameters, target), _derivative(start, general, same, target)
    return _by_torch(ways[0]), _by_torch(ways[1])


def _remembering(
    gradients_seen: Tensor,
) -> tuple[Callable[[], object], list[Tensor], list[Tensor], Tensor]:
    """A step of L-BFGS with 100 pairs of 32 attacks, the pairs, and the gradient.

    Of a quadratic function, so that every pair is remembered.
    """
    optimizer = LBFGS()
    state = optimizer.init(gradients_seen[:, 0].clone())
    curvature = torch.linspace(0.5, 2, gradients_seen.shape[2])
    steps, changes, previous = [], [], None
    for number in range(100):
        x, grad = state.x, curvature * state.x + 0.1 * gradients_seen[:, number]
        if previous is not None:
            steps.append(x - previous[0])
            changes.append(grad - previous[1])
        previous = x, grad
        state = optimizer.update(state, grad.square().sum(1), grad)
    x, grad = state.x, curvature * state.x
    return lambda: optimizer.update(state, grad.square().sum(1), grad), steps, changes, grad


def _directions(gradients_seen: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """The direction from 100 remembered pairs of 32 attacks."""
    compact, steps, changes, grad = _remembering(gradients_seen)

    def two_loops() -> Tensor:
        direction, kept = -grad, []
        inverse = [1 / (s * y).sum(1, keepdim=True) for s, y in zip(steps, changes, strict=True)]
        for s, y, rho in zip(reversed(steps), reversed(changes), reversed(inverse), strict=True):
            kept.append(rho * (s * direction).sum(1, keepdim=True))
            direction = direction - kept[-1] * y
        direction = direction / (inverse[-1] * (changes[-1] ** 2).sum(1, keepdim=True))
        for s, y, rho, alpha in zip(steps, changes, inverse, reversed(kept), strict=True):
            direction = direction + (alpha - rho * (y * direction).sum(1, keepdim=True)) * s
        return direction

    return _by_torch(compact), two_loops
