"""The epsilon of a training, by the accountants of opacus, with all that it depends on said beside it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from wdlg.errors import InputError, require_count, require_positive, told

NOTE = "choosing settings by trying several trainings is not included"


@dataclass(frozen=True)
class PrivacyLoss:
    """Differential privacy of one training, and what it holds for.

    Attributes:
        rdp: epsilon by Rényi differential privacy (Mironov 2017; Mironov et al. 2019), an upper bound.
        prv: epsilon by the distribution of the privacy loss (Gopi et al. 2021), its upper end: closer.
        delta, multiplier, sample_rate, steps: as given to :func:`privacy_loss`.
    """

    rdp: float
    prv: float
    delta: float
    multiplier: float
    sample_rate: float
    steps: int

    def statement(self, unit: str = "participant's message") -> str:
        """All of it in a sentence.

        Args:
            unit: what neighbouring data sets differ by: one image if each participant has one.
        """
        lots = (
            f"Poisson lots with rate {self.sample_rate:.3g}"
            if self.sample_rate < 1
            else "everybody every time"
        )
        return (
            f"epsilon = {self.prv:.2f} (PRV; RDP: {self.rdp:.2f}) at delta = {self.delta:g}, for adding or "
            f"removing one {unit}; {lots}, {self.steps} steps, noise multiplier {self.multiplier:g}; {NOTE}."
        )


def privacy_loss(multiplier: float, sample_rate: float, steps: int, delta: float) -> PrivacyLoss:
    """Epsilon of so many steps of clipping and normal noise on Poisson lots.

    The accountants are those of opacus 1.6, which is loaded here and takes some seconds the first time.

    Args:
        multiplier: standard deviation of the noise on the sum in units of the clipping norm, above 0.
        sample_rate: probability of each participant in each step, above 0 and at most 1.
        steps: at least 1.
        delta: above 0 and below 1.

    Raises:
        InputError: a number is out of range, or opacus is not installed.
    """
    multiplier = require_positive("multiplier", multiplier)
    if require_positive("sample_rate", sample_rate) > 1:
        raise InputError(f"sample_rate is {told(sample_rate)}, but must be above 0 and at most 1.")
    steps = require_count("steps", steps)
    if require_positive("delta", delta) >= 1:
        raise InputError(f"delta is {told(delta)}, but must be above 0 and below 1.")
    found = {}
    # It warns where the best order of Rényi's divergence is the last that it tries.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind in _accountants().items():
            accountant = kind()
            accountant.history = [(multiplier, float(sample_rate), steps)]
            found[name] = float(accountant.get_epsilon(delta=delta))
    return PrivacyLoss(found["rdp"], found["prv"], delta, multiplier, float(sample_rate), steps)


def _accountants() -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from opacus.accountants import PRVAccountant, RDPAccountant
    except ImportError:
        raise InputError(
            "opacus is not installed, but must be for an epsilon: pip install 'opacus>=1.6'."
        ) from None
    return {"rdp": RDPAccountant, "prv": PRVAccountant}
