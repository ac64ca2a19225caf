"""Gradient descent and Adam, batched over attacks. One iteration is one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wdlg.errors import InputError, require_count, require_flag, require_not_negative, require_positive, told
from wdlg.optimizers.state import State, require_evaluation, require_start


def _start(x: Tensor) -> tuple[Tensor, Tensor]:
    """Iteration counts of zero, and nothing stalled."""
    require_start(x)
    return (
        torch.zeros(len(x), dtype=torch.long, device=x.device),
        torch.zeros(len(x), dtype=torch.bool, device=x.device),
    )


@dataclass(frozen=True)
class GradientDescent:
    """``x <- x - learning_rate * grad``: the update that Algorithm 1 of the paper prints.

    Args:
        learning_rate: step length, above 0, in image units per unit of the loss's gradient.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        require_positive("learning_rate", self.learning_rate)

    def init(self, x: Tensor) -> State:
        """Start at x (B, n)."""
        return State(x, *_start(x))

    def update(self, state: State, loss: Tensor, grad: Tensor) -> State:
        """Step against the gradient (B, n)."""
        require_evaluation(state, loss, grad)
        return replace(state, x=state.x - self.learning_rate * grad, iterations=state.iterations + 1)


@dataclass(frozen=True)
class AdamState(State):
    """:class:`State` with Adam's running means of the gradient and of its square, each (B, n)."""

    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), with the update of ``torch.optim.Adam``.

    Args:
        learning_rate: step length, above 0, in image units.
        betas: decay of the two running means, each at least 0 and below 1.
        epsilon: added to the root of the second mean, above 0.
        signed: take the sign of each entry of the gradient instead of the entry (Geiping et al. 2020), so
            that a step does not depend on the loss's scale.
        milestones: iterations after which the learning rate is multiplied by ``decay``, as
            ``torch.optim.lr_scheduler.MultiStepLR`` has them.
        decay: above 0.

    Raises:
        InputError: a setting is out of range.
    """

    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    signed: bool = False
    milestones: tuple[int, ...] = ()
    decay: float = 0.1

    def __post_init__(self) -> None:
        require_positive("learning_rate", self.learning_rate)
        require_positive("epsilon", self.epsilon)
        if not isinstance(self.betas, Sequence) or isinstance(self.betas, str) or len(self.betas) != 2:
            raise InputError(f"betas is {told(self.betas)}, but must be two numbers.")
        for beta in self.betas:
            if require_not_negative("betas", beta) >= 1:
                raise InputError(f"betas is {told(self.betas)}, but both must be below 1.")
        object.__setattr__(self, "betas", tuple(self.betas))  # a study file has lists
        require_flag("signed", self.signed)
        if not isinstance(self.milestones, Sequence) or isinstance(self.milestones, str):
            raise InputError(f"milestones is {told(self.milestones)}, but must be a list of whole numbers.")
        object.__setattr__(
            self, "milestones", tuple(require_count("milestones", one) for one in self.milestones)
        )
        require_positive("decay", self.decay)

    def init(self, x: Tensor) -> AdamState:
        """Start at x (B, n)."""
        return AdamState(x, *_start(x), mean=torch.zeros_like(x), square=torch.zeros_like(x))

    def update(self, state: AdamState, loss: Tensor, grad: Tensor) -> AdamState:
        """One Adam step with the gradient (B, n)."""
        require_evaluation(state, loss, grad)
        if self.signed:
            grad = grad.sign()
        first, second = self.betas
        iterations = state.iterations + 1
        mean = first * state.mean + (1 - first) * grad
        square = second * state.square + (1 - second) * grad**2
        count = iterations[:, None].to(grad.dtype)
        step = (mean / (1 - first**count)) / ((square / (1 - second**count)).sqrt() + self.epsilon)
        x = state.x - self._rate(state.iterations) * step
        return replace(state, x=x, iterations=iterations, mean=mean, square=square)

    def _rate(self, iterations: Tensor) -> float | Tensor:
        """Learning rate after so many iterations, (B,): one for all, or (B, 1)."""
        if not self.milestones:
            return self.learning_rate
        passed = (iterations[:, None] >= torch.tensor(self.milestones, device=iterations.device)).sum(1)
        return self.learning_rate * self.decay ** passed[:, None]
