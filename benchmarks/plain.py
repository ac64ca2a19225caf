"""The plain formulation that the engine is compared with: iDLG on one image at a time, from the algorithm."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attacks import IDLG, Start


def idlg(start: Start, evaluations: int) -> int:
    """Attack every image of a start in turn with ``torch.optim.LBFGS``; the gradient evaluations made."""
    return sum(_one(start.select(torch.tensor([number])), evaluations) for number in range(len(start)))


def _one(start: Start, evaluations: int) -> int:
    observation = start.observation
    module = observation.network.as_module(observation.parameters)
    parameters = list(module.parameters())
    shared = [
        tensor.reshape(parameter.shape)
        for tensor, parameter in zip(observation.gradient.tensors(), parameters, strict=True)
    ]
    label = IDLG.label_rule(observation.gradient, observation.images)
    dummy = start.dummy_images.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([dummy], max_eval=evaluations)
    made = 0

    def closure() -> torch.Tensor:
        nonlocal made
        made += 1
        gradient = torch.autograd.grad(F.cross_entropy(module(dummy), label), parameters, create_graph=True)
        loss = sum(((ours - theirs) ** 2).sum() for ours, theirs in zip(gradient, shared, strict=True))
        (dummy.grad,) = torch.autograd.grad(loss, dummy)
        return loss

    while made < evaluations:
        before = made
        optimizer.step(closure)
        if made - before < 2:  # at rest
            break
    return made
