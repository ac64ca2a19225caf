"""The only place that sees both the private image and its reconstruction.

The papers report the mean squared error of the last iterate, unclamped; so does ``mse`` here. PSNR and
SSIM are for images, so they are taken after clamping to [0, 1]. A reconstruction that is not finite has an
infinite MSE and stays in every table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wdlg.attacks.base import Reconstruction, Status
from wdlg.errors import InputError
from wdlg.shapes import require_tensor

if TYPE_CHECKING:
    import pandas as pd

EXPLOSION = 10.0
"""A run exploded if its last loss or MSE is not finite or exceeds this multiple of its start."""

SUCCESS_THRESHOLDS = (1e-2, 5e-3, 1e-3, 5e-4, 1e-4)
"""The MSE values of iDLG's Figure 1. Examples, not a definition of privacy."""

SUCCESS = SUCCESS_THRESHOLDS[0]
"""An attack recovered its image if its last MSE is below this, the loosest of the thresholds."""

SUCCESS_TITLE = f"MSE < {SUCCESS:g}"
"""What tables and figures call it."""

SSIM_WINDOW = 7
"""Side of the window in pixels over which SSIM compares."""


def mse(images: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each image (B, C, H, W) against the truth, (B,); infinite if not finite.

    Raises:
        InputError: the shapes differ.
    """
    _require_images(images, truth)
    error = (images - truth).square().flatten(1).mean(1)
    return error.nan_to_num(nan=torch.inf, posinf=torch.inf)


def matched(images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Which recovered image is which private one, for participants with several images each.

    A mean gradient does not tell its images' order. They are matched one to one, so that the sum of the mean
    squared errors is least (Hungarian algorithm). An image that is not finite goes to what is left.

    Args:
        images: recovered, (B, N, C, H, W).
        truth: private, (B, N, C, H, W).

    Returns:
        The recovered images in the order of the private ones, and the MSE of each, (B, N); infinite if not
        finite.

    Raises:
        InputError: the shapes differ.

    >>> images = torch.arange(3.0).view(1, 3, 1, 1, 1)
    >>> found, error = matched(images.flip(1), images)
    >>> torch.equal(found, images), error.tolist()
    (True, [[0.0, 0.0, 0.0]])
    """
    from scipy.optimize import linear_sum_assignment  # slow to load, and of no use for one image

    require_tensor("truth", truth, ("B", "N", "C", "H", "W"))
    require_tensor("images", images, tuple(truth.shape))
    rows, errors = [], []
    for found, private in zip(images, truth, strict=True):
        between = (private[:, None] - found[None]).square().flatten(2).mean(2)
        # The solver takes no infinities. An image that is not finite is as far from each, so any number does.
        between = torch.where(torch.isfinite(between), between, 0.0)
        _, order = linear_sum_assignment(between.double().cpu().numpy())
        place = torch.from_numpy(order).to(images.device)
        rows.append(found[place])
        errors.append(mse(found[place], private))
    return torch.stack(rows), torch.stack(errors)


def recovered(error: Any) -> Any:
    """Whether an MSE is below :data:`SUCCESS`; so is none that is not a number.

    Args:
        error: one, or a column, array or tensor of them.

    >>> recovered(0.002), recovered(float("nan"))
    (True, False)
    """
    return error < SUCCESS


def psnr(images: Tensor, truth: Tensor) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, (B,), of images clamped to [0, 1]; infinite for equal images.

    Raises:
        InputError: the shapes differ, or the truth is not within [0, 1].
    """
    # As in scikit-image, where the module that has it takes half a second to import.
    errors = [np.mean((picture - original) ** 2) for original, picture in _pictures(truth, images)]
    with np.errstate(divide="ignore"):
        return 10 * np.log10(1 / np.array(errors))


def ssim(images: Tensor, truth: Tensor) -> np.ndarray:
    """Structural similarity, (B,), of images clamped to [0, 1], with a 7x7 window; 1 for equal images.

    NaN for images with a side below 7 pixels, on which no window fits.
    """
    from skimage.metrics import structural_similarity

    if min(truth.shape[-2:]) < SSIM_WINDOW:
        return np.full(len(truth), np.nan)
    return np.array(
        [
            structural_similarity(original, picture, win_size=SSIM_WINDOW, data_range=1.0, channel_axis=-1)
            for original, picture in _pictures(truth, images)
        ]
    )


def _pictures(truth: Tensor, images: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (H, W, C) in [0, 1]. What is not a number is black, as a viewer would show it."""
    _require_images(images, truth)
    _require_within_range(truth)
    both = [
        batch.detach().nan_to_num(nan=0.0).clamp(0, 1).permute(0, 2, 3, 1).double().cpu().numpy()
        for batch in (truth, images)
    ]
    return list(zip(*both, strict=True))


def _require_images(images: Tensor, truth: Tensor) -> None:
    require_tensor("truth", truth, ("B", "C", "H", "W"))
    require_tensor("images", images, tuple(truth.shape))


def _require_within_range(truth: Tensor) -> None:
    """Refuse private images that are normalised: clamped to [0, 1] they would be other images."""
    if not ((truth >= 0) & (truth <= 1)).all():
        raise InputError(
            f"truth has values from {float(truth.min()):.3g} to {float(truth.max()):.3g}, but must be within "
            "[0, 1]: undo a normalisation first, in the reconstruction too."
        )


def evaluate(reconstruction: Reconstruction, truth: Tensor, labels: Tensor, start: Tensor) -> pd.DataFrame:
    """One row for each attack: how it ended, and how close it came.

    Args:
        reconstruction: of B attacks.
        truth: private images (B, C, H, W) in [0, 1].
        labels: private labels (B,).
        start: the dummy images that the attacks started from, (B, C, H, W).

    Returns:
        Columns status, label_true, label_recovered, label_correct, iterations, evaluations, seconds, loss,
        loss_first, loss_best, mse, mse_start, mse_best (of the iterate with the least loss), psnr, ssim,
        exploded, and for each of ``SUCCESS_THRESHOLDS`` whether the MSE is below it, as below_0.01 and so on.

    Raises:
        InputError: shapes or counts differ, or the truth is not within [0, 1].
    """
    import pandas as pd

    reconstruction = reconstruction.to("cpu")
    _require_images(reconstruction.images, truth)
    _require_images(start, truth)
    _require_within_range(truth)
    if tuple(labels.shape) != (len(reconstruction),):
        raise InputError(
            f"labels has shape {tuple(labels.shape)}, but must have shape ({len(reconstruction)},)."
        )
    last = mse(reconstruction.images, truth)
    first = mse(start, truth)
    loss = reconstruction.loss
    exploded = (
        ~torch.isfinite(last)
        | (last > EXPLOSION * first)
        # A run that never started (no label) has no loss, and has not exploded.
        | ((reconstruction.evaluations > 0) & ~torch.isfinite(loss))
        | (loss > EXPLOSION * reconstruction.first_loss)
    )
    return pd.DataFrame(
        {
            "status": [Status(code).name.lower() for code in reconstruction.status.tolist()],
            "label_true": labels.numpy(),
            "label_recovered": reconstruction.labels.numpy(),
            "label_correct": (labels == reconstruction.labels).numpy(),
            "iterations": reconstruction.iterations.numpy(),
            "evaluations": reconstruction.evaluations.numpy(),
            "seconds": reconstruction.seconds.numpy(),
            "loss": loss.numpy(),
            "loss_first": reconstruction.first_loss.numpy(),
            "loss_best": reconstruction.best_loss.numpy(),
            "mse": last.numpy(),
            "mse_start": first.numpy(),
            "mse_best": mse(reconstruction.best_images, truth).numpy(),
            "psnr": psnr(reconstruction.images, truth),
            "ssim": ssim(reconstruction.images, truth),
            "exploded": exploded.numpy(),
            **{f"below_{bound:g}": (last < bound).numpy() for bound in SUCCESS_THRESHOLDS},
        }
    )


class MSETrace:
    """An observer that writes down the MSE of every evaluated image.

    Args:
        truth: private images (B, C, H, W).
        evaluations: the budget E.

    Attributes:
        values: (B, E), NaN after an attack's end.
    """

    def __init__(self, truth: Tensor, evaluations: int) -> None:
        self.truth = truth
        self.values = torch.full((len(truth), evaluations), torch.nan)
        self._written = torch.zeros(len(truth), dtype=torch.long)

    def __call__(
        self,
        attacks: Tensor,
        evaluations: Tensor,
        iterations: Tensor,  # noqa: ARG002
        images: Tensor,
        loss: Tensor,  # noqa: ARG002
    ) -> None:
        # The engine may work on a GPU; what is watched stays here.
        attacks, evaluations = attacks.cpu(), evaluations.cpu()
        written = self._written[attacks]
        for row in (evaluations > written).nonzero()[:, 0].tolist():
            # Work that was worth some evaluations left the image as it was.
            values, last = self.values[attacks[row]], int(written[row])
            values[last : evaluations[row]] = values[last - 1]
        self.values[attacks, evaluations] = mse(images.cpu(), self.truth[attacks]).float()
        self._written[attacks] = evaluations + 1

    def end(self, evaluations: Tensor) -> None:
        """Attacks have ended after so many evaluations (B,): the last of them may have been work alone."""
        for row in (evaluations > self._written).nonzero()[:, 0].tolist():
            last = int(self._written[row])
            if last:
                self.values[row, last : evaluations[row]] = self.values[row, last - 1]


def first_success(mse_trace: Tensor, iteration_trace: Tensor) -> pd.DataFrame:
    """When each attack first had an MSE below ``SUCCESS``; NaN for never.

    Args:
        mse_trace: MSE of every evaluation (B, E), NaN after an attack's end.
        iteration_trace: the iteration in which each evaluation fell, (B, E).

    Returns:
        Columns evaluations_to_success and iterations_to_success, counted from 0.
    """
    import pandas as pd

    below = recovered(mse_trace)
    place = below.int().argmax(1)
    iteration = iteration_trace.gather(1, place[:, None])[:, 0]
    ever = below.any(1).numpy()
    return pd.DataFrame(
        {
            "evaluations_to_success": np.where(ever, place.numpy(), np.nan),
            "iterations_to_success": np.where(ever, iteration.numpy(), np.nan),
        }
    )


class Snapshots:
    """An observer that keeps the images at chosen iterations.

    Args:
        iterations: which, ascending from 0.
        start: dummy images (B, C, H, W).

    Attributes:
        images: (len(iterations), B, C, H, W). An attack that has ended keeps its last image.
    """

    def __init__(self, iterations: Sequence[int], start: Tensor) -> None:
        self.iterations = tuple(iterations)
        self.images = start.expand(len(self.iterations), *start.shape).clone()
        self._reached = torch.zeros(len(self.iterations), len(start), dtype=torch.bool)

    def __call__(
        self,
        attacks: Tensor,
        evaluations: Tensor,  # noqa: ARG002
        iterations: Tensor,
        images: Tensor,
        loss: Tensor,  # noqa: ARG002
    ) -> None:
        attacks, iterations, images = attacks.cpu(), iterations.cpu(), images.cpu()
        for place, iteration in enumerate(self.iterations):
            # Overwritten until the iteration is reached, so that an early end leaves the last image.
            due = ~self._reached[place, attacks]
            self.images[place, attacks[due]] = images[due]
            self._reached[place, attacks] |= iterations >= iteration
