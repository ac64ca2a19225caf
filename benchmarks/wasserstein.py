"""The Wasserstein loss and its derivative: batched, and with POT called layer by layer."""

from __future__ import annotations

import ot
import torch
from torch import Tensor

from benchmarks.problems import Problem
from wdlg.losses import Wasserstein
from wdlg.losses.wasserstein import squared_distances
from wdlg.updates import Gradient

EPS = 0.1
ITERATIONS = 100


def gradients(attacks: int) -> tuple[Gradient, Gradient]:
    """Gradients of dummy images, and the shared ones."""
    start = Problem(attacks).start()
    observation = start.observation
    target = torch.softmax(start.dummy_labels, dim=-1)
    dummy = observation.network.gradient(observation.parameters, start.dummy_images, target)
    return dummy, observation.gradient


def batched(dummy: Gradient, shared: Gradient) -> tuple[Tensor, list[Tensor]]:
    """Loss (B,) and its derivatives by the parts of the dummy gradient, with a fixed number of iterations."""
    leaves = [part.clone().requires_grad_() for part in (*dummy.hidden, dummy.bias, dummy.output.features)]
    loss = Wasserstein(eps=EPS, max_iterations=ITERATIONS, threshold=1e-300)(
        Gradient.of_one(tuple(leaves[:-2]), *leaves[-2:]), shared
    )
    return loss.detach(), list(torch.autograd.grad(loss.sum(), leaves))


def layer_by_layer(dummy: Gradient, shared: Gradient) -> tuple[Tensor, list[Tensor]]:
    """The same with ``ot.sinkhorn`` in the log domain, for one attack and one parameter at a time."""
    losses, derivatives = [], []
    for attack in range(len(dummy)):
        one = torch.tensor([attack])
        mine, theirs = dummy.select(one), shared.select(one)
        leaves = [part.clone().requires_grad_() for part in (*mine.hidden, mine.bias, mine.output.features)]
        tracked = Gradient.of_one(tuple(leaves[:-2]), *leaves[-2:])
        loss = torch.zeros(())
        for x, y in zip(tracked.tensors(), theirs.tensors(), strict=True):
            cost = squared_distances(x[0], y[0])
            weights = torch.full((len(cost),), 1 / len(cost))
            # POT begins with the other marginal, so it is given the problem the other way round.
            plan = ot.sinkhorn(
                weights, weights, cost.detach().T, EPS,
                method="sinkhorn_log", numItermax=ITERATIONS, stopThr=0.0, warn=False,
            ).T  # fmt: skip
            loss = loss + (plan * cost).sum()
        losses.append(loss.detach())
        derivatives.append(torch.autograd.grad(loss, leaves))
    return torch.stack(losses), [torch.cat(parts) for parts in zip(*derivatives, strict=True)]
