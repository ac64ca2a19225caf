"""Why a matching loss does or does not lead to the private image: looks behind the attack, with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.optimised import Optimised
from wdlg.evaluation import recovered
from wdlg.losses import Loss, Wasserstein
from wdlg.study.cases import Cases
from wdlg.study.paired import run_paired


def _loss_and_slope(cases: Cases, loss: Loss, images: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (B,) at images (B, C, H, W) with the true labels, and the norm of its derivative (B,)."""
    observation = cases.observation()
    target = F.one_hot(cases.labels, cases.network.classes).to(images.dtype)
    images = images.detach().requires_grad_()
    value = loss(observation.network.gradient(observation.parameters, images, target), observation.gradient)
    (grad,) = torch.autograd.grad(value.sum(), images)
    return value.detach(), grad.flatten(1).norm(dim=1)


def at_the_truth(cases: Cases, losses: dict[str, Loss]) -> pd.DataFrame:
    """Is the private image a minimum of the loss? Loss and length of its derivative there, and at the dummy.

    Returns:
        One row for each loss and case: loss, case, at_truth, slope_at_truth, at_dummy, slope_at_dummy. The
        slopes are norms of the derivative by the image.
    """
    tables = []
    for name, loss in losses.items():
        at_truth, slope_at_truth = _loss_and_slope(cases, loss, cases.truth)
        at_dummy, slope_at_dummy = _loss_and_slope(cases, loss, cases.dummy_images)
        tables.append(
            pd.DataFrame(
                {
                    "loss": name,
                    "case": range(len(cases)),
                    "at_truth": at_truth.numpy(),
                    "slope_at_truth": slope_at_truth.numpy(),
                    "at_dummy": at_dummy.numpy(),
                    "slope_at_dummy": slope_at_dummy.numpy(),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def loss_along(cases: Cases, loss: Loss, towards: Tensor, positions: Tensor) -> Tensor:
    """Loss on straight lines from the private image (position 0) to other images (position 1).

    Args:
        cases: B cases.
        loss: the matching loss.
        towards: (B, C, H, W).
        positions: (T,), may be negative or beyond 1.

    Returns:
        (B, T).
    """
    values = [
        _loss_and_slope(cases, loss, torch.lerp(cases.truth, towards, float(position)))[0]
        for position in positions
    ]
    return torch.stack(values, dim=1)


def plans(cases: Cases, images: Tensor, settings: Wasserstein) -> dict[str, Tensor]:
    """Transport plans from the gradients of ``images`` to the shared ones, by parameter name.

    Each is (B, n, n), or (B, problems, n, n) for a parameter whose kernels are transported one by one.
    """
    observation = cases.observation()
    target = F.one_hot(cases.labels, cases.network.classes).to(images.dtype)
    dummy = observation.network.gradient(observation.parameters, images, target)
    found = settings.couplings(dummy, observation.gradient)
    return dict(zip(cases.network.parameter_names, found, strict=True))


def kept_share(plan: Tensor) -> Tensor:
    """Share of the mass that stays with its own point, (B,): 1 for the identity, 1/n for an even spread."""
    return plan.diagonal(dim1=-2, dim2=-1).flatten(1).sum(1) / plan.flatten(1).sum(1)


def kept_by_parameter(cases: Cases, images: Tensor, settings: Wasserstein) -> pd.DataFrame:
    """Share of the mass that stays with its own point, between the gradients of images and the shared ones.

    Args:
        cases: B cases.
        images: (B, C, H, W), where the dummy gradients are taken.
        settings: the loss, and with it the plan.

    Returns:
        One row for each case, one column for each parameter of the network.
    """
    found = plans(cases, images, settings)
    return pd.DataFrame({name: kept_share(plan).numpy() for name, plan in found.items()})


@dataclass(frozen=True)
class Along:
    """Attacks on the same cases, and their transport plans as they go on.

    Attributes:
        plans: by attack, iteration and parameter name; see :func:`plans`.
        recovered: by attack, whether it recovered the image of each case, (B,).
    """

    plans: dict[str, dict[int, dict[str, Tensor]]]
    recovered: dict[str, np.ndarray]


def plans_along(cases: Cases, attacks: Sequence[Optimised], *, iterations: Sequence[int]) -> Along:
    """Transport plans as attacks go on, and what becomes of these attacks.

    Args:
        cases: B cases.
        attacks: with Wasserstein losses.
        iterations: at which the plans are looked at. An attack that has ended keeps its last image.
    """
    outcome = run_paired(cases, attacks, snapshot_iterations=iterations)
    along: dict[str, dict[int, dict[str, Tensor]]] = {}
    for attack in attacks:
        assert isinstance(attack.loss, Wasserstein)
        snapshots = torch.from_numpy(outcome.snapshots[attack.name]).nan_to_num()
        along[attack.name] = {
            iteration: plans(cases, images, attack.loss)
            for iteration, images in zip(iterations, snapshots, strict=True)
        }
    by_method = outcome.records.sort_values("case").groupby("method")["mse"]
    return Along(along, {str(name): recovered(errors.to_numpy()) for name, errors in by_method})


def kept_along(along: Along) -> pd.DataFrame:
    """Share of mass that stays with its own unit as attacks go on.

    Returns:
        One row for each attack, iteration and case: method, case, iteration, kept (mean over the weights of
        all layers), recovered (whether the attack had the image at its end).
    """
    tables = []
    for method, by_iteration in along.plans.items():
        for iteration, found in by_iteration.items():
            weights = [kept_share(plan) for name, plan in found.items() if name.endswith("weight")]
            columns = {
                "method": method,
                "case": range(len(along.recovered[method])),
                "iteration": iteration,
                "kept": torch.stack(weights).mean(0).numpy(),
                "recovered": along.recovered[method],
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
