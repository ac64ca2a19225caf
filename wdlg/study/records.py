"""Records of attacks: one row each, with traces on a log grid and pictures that can be read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wdlg.attacks.base import Attack, Reconstruction, Start, require_device
from wdlg.attacks.run import reconstruct
from wdlg.evaluation import MSETrace, Snapshots, evaluate, first_success
from wdlg.sharing import defences
from wdlg.study.cases import Cases

if TYPE_CHECKING:
    import pandas as pd

TRACE_POINTS = 80
"""Points of a stored trace, on a log grid of evaluations."""

PICTURE_ITERATIONS = (5, 20, 60, 300)
"""Iterations of which images are kept."""

PICTURE_NETWORKS = 4
"""Images are kept of the first case of each of so many networks, for figures: records are no collection of
private images."""


def record(
    cases: Cases,
    attack: Attack,
    *,
    batch_size: int,
    snapshot_iterations: Sequence[int] = (),
    trace_points: int = TRACE_POINTS,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[pd.DataFrame, Reconstruction, Tensor]:
    """Run an attack on cases.

    Args:
        cases: B cases.
        attack: what is run.
        batch_size: attacks computed together.
        snapshot_iterations: of which images are kept.
        trace_points: of the log grid of traces.
        device: where the attack computes, such as "cuda". All that comes back is on the CPU.
        progress: show a bar.

    Returns:
        Records, one row for each case: image, its position in the sample; the columns of
        :func:`~wdlg.evaluation.evaluate`; iterations_to_success and evaluations_to_success, when the MSE
        first was below the loosest threshold, NaN for never; loss_at_truth, the loss that the private image
        itself would have; where the cases have a defence, relative_error and cosine of what was sent to the
        exact gradient; and trace_evaluation, trace_iteration, trace_loss and trace_mse, arrays on a log grid
        of evaluations. Then the result of the engine, and the images at ``snapshot_iterations``
        (len(iterations), B, C, H, W).

    Raises:
        InputError: this machine does not have the device.
        KeyboardInterrupt: the user stopped the run.
    """
    import pandas as pd

    trace = MSETrace(cases.truth, attack.evaluations)
    snapshots = Snapshots(snapshot_iterations, cases.dummy_images)
    observation = cases.observation()
    start = Start(observation, cases.dummy_images, cases.dummy_labels).to(require_device("device", device))
    result = reconstruct(
        attack,
        start.observation,
        start.dummy_images,
        start.dummy_labels,
        observers=(trace, snapshots),
        batch_size=batch_size,
        progress=progress,
    ).to("cpu")
    if result.interrupted:
        raise KeyboardInterrupt
    trace.end(result.evaluations)
    records = evaluate(result, cases.truth, cases.labels, cases.dummy_images)
    records.insert(0, "image", cases.image_index.numpy())
    records = records.join(first_success(trace.values, result.iteration_trace))
    exact = observation.gradient if cases.defence is None else cases.exact().gradient
    records["loss_at_truth"] = attack.loss(exact, observation.gradient).numpy() if attack.loss else np.nan
    if cases.defence is not None:
        records["relative_error"] = defences.relative_error(observation.gradient, exact).numpy()
        records["cosine"] = defences.cosine(observation.gradient, exact).numpy()
    grids = [log_grid(int(count), trace_points) for count in result.evaluations]
    records["trace_evaluation"] = pd.Series([grid.numpy() for grid in grids], dtype=object)
    for name, values in (
        ("iteration", result.iteration_trace),
        ("loss", result.loss_trace),
        ("mse", trace.values),
    ):
        records[f"trace_{name}"] = pd.Series(
            [row[grid].numpy() for row, grid in zip(values, grids, strict=True)], dtype=object
        )
    return records, result, snapshots.images


def log_grid(evaluations: int, points: int = TRACE_POINTS) -> Tensor:
    """Numbers of the evaluations that are stored, from the first, 0, to the last: int32, ascending.

    Of so many points on a log scale, each that falls on another evaluation.
    """
    if not evaluations:
        return torch.zeros(0, dtype=torch.int32)
    places = np.geomspace(1, evaluations, points).round().astype(np.int32) - 1
    return torch.from_numpy(np.unique(places))


def values_at(records: pd.DataFrame, quantity: str, places: np.ndarray, *, against: str) -> np.ndarray:
    """Loss or MSE of each run when so many evaluations or iterations were done, (runs, places).

    That is the last stored value before, and at first the value at the start; a run that has ended keeps its
    last value, so that it stays in every median. A run without a single value is NaN throughout.

    Args:
        records: with traces, see :func:`record`.
        quantity: "loss" or "mse".
        places: numbers, at least 0.
        against: "evaluation" or "iteration".
    """
    values = np.full((len(records), len(places)), np.nan)
    pairs = zip(records[f"trace_{against}"], records[f"trace_{quantity}"], strict=True)
    for row, (done, trace) in enumerate(pairs):
        if len(trace):
            values[row] = trace[np.maximum(np.searchsorted(done, places) - 1, 0)]
    return values


def as_bytes(images: Tensor) -> bytes:
    """Images as they are stored: clamped to [0, 1], one byte a channel, black where they are no number."""
    return images.nan_to_num(nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8).numpy().tobytes()


def as_images(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Stored pictures in [0, 1], one for each of ``PICTURE_ITERATIONS``, (4, C, H, W).

    Args:
        content: an entry of the column pictures that is not empty.
        shape: (C, H, W).
    """
    return np.frombuffer(content, np.uint8).reshape(len(PICTURE_ITERATIONS), *shape) / 255
