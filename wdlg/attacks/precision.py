"""Attacks that compute in double precision whatever the precision of what was sent.

In single precision the loss of an image that is right to six digits is rounding alone, and no step of a
method that converges quadratically could be told from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from wdlg.attacks.base import Observer, Reconstruction, Start
from wdlg.networks.base import Parameters

MOST_NUMBERS = 2**27
"""That the matrices of a batch may hold together: 1 GiB in double precision."""

Run = Callable[[Iterable[Start], Sequence[Observer], int], Iterator[tuple[Tensor, Reconstruction]]]


def run_in_double(
    run: Run, starts: Iterable[Start], observers: Sequence[Observer], batch_size: int
) -> Iterator[tuple[Tensor, Reconstruction]]:
    """Run attacks that hold a matrix each, in double precision; what is seen of them is in that of the start.

    Args:
        run: takes starts, observers and the size of a batch.
        starts, observers, batch_size: see :func:`wdlg.attacks.run.reconstruct_each`. A batch is made smaller
            where its matrices would need too much memory.
    """
    starts = iter(starts)
    first = next(starts, None)
    if first is None:
        return
    dtype = first.dummy_images.dtype
    variables = first.dummy_images[0].numel()
    if first.dummy_labels is not None:
        variables += first.dummy_labels[0].numel()
    seeing = [_In(dtype, observe) for observe in observers]
    together = max(1, min(batch_size, MOST_NUMBERS // variables**2))
    for number, result in run(_doubled(chain([first], starts)), seeing, together):
        told = {
            name: getattr(result, name).to(dtype)
            for name in ("images", "best_images", "loss", "best_loss", "first_loss", "loss_trace")
        }
        yield number, replace(result, **told)


def _doubled(starts: Iterable[Start]) -> Iterator[Start]:
    """The starts in double precision; those of one network still have one together."""
    before: Parameters | None = None
    for start in starts:
        observation = start.observation
        if observation.parameters is not before:
            before = observation.parameters
            parameters = before.in_precision(torch.float64)
        yield Start(
            replace(
                observation, parameters=parameters, gradient=observation.gradient.in_precision(torch.float64)
            ),
            start.dummy_images.double(),
            None if start.dummy_labels is None else start.dummy_labels.double(),
        )


class _In:
    """An observer that sees images and losses of a precision."""

    def __init__(self, dtype: torch.dtype, observe: Observer) -> None:
        self.dtype, self.observe = dtype, observe

    def __call__(
        self, attacks: Tensor, evaluations: Tensor, iterations: Tensor, images: Tensor, loss: Tensor
    ) -> None:
        self.observe(attacks, evaluations, iterations, images.to(self.dtype), loss.to(self.dtype))
