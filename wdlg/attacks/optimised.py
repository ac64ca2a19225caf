"""Attacks that optimise: label rule x loss x priors x optimiser. DLG, iDLG and WDLG are three values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from wdlg.attacks.base import BATCH_SIZE, Observation, Observer, Reconstruction, Start
from wdlg.attacks.endings import Endings
from wdlg.attacks.engine import run
from wdlg.attacks.labels import BiasSign, Joint, LabelRule, RowSum, label_rule
from wdlg.attacks.objective import Objective
from wdlg.attacks.precision import run_in_double
from wdlg.attacks.priors import Prior, Projection
from wdlg.errors import InputError, require_count, require_positive, told
from wdlg.losses import Loss, SquaredEuclidean, SumOfSquares, Wasserstein
from wdlg.optimizers import LBFGS, LevenbergMarquardt, Optimizer, SquaresOptimizer


@dataclass(frozen=True)
class Optimised:
    """Gradient matching (Algorithm 1) as data: what is minimised, and how.

    Args:
        name: what tables and figures call it.
        label_rule: from :mod:`wdlg.attacks.labels`, as it is or by its name: "bias_sign" (WDLG),
            "bias_min" (the same for a changed gradient), "row_sum" (iDLG) or "joint" (DLG: the label is
            optimised too).
        loss: what is minimised, from :mod:`wdlg.losses`.
        optimizer: how, from :mod:`wdlg.optimizers`.
        evaluations: the most gradient evaluations for each attack.
        stop_loss: the attack has converged when its loss falls below this. Seen by the attacker, unlike
            the MSE to the private image on which the paper stops.
        priors: added to the loss, from :mod:`wdlg.attacks.priors`; all losses that are told hold them.
        projection: carries the dummy images back to where they may be after each move, such as
            :class:`~wdlg.attacks.priors.Box`; None for nowhere. Not for an optimiser that remembers its
            moves.
        first_loss: the loss in the eyes of the optimiser and of ``stop_loss`` is multiplied so that it has
            this value at the attack's dummy; None leaves it as it is. Tolerances and learning rates are in
            units of the loss, so losses of different units, and networks with gradients of different size,
            can be compared only so. What is written down stays in the loss's own unit.

    Raises:
        InputError: unknown label rule, no loss, optimiser, prior or projection, two that do not go together,
            or a count or number out of range.
    """

    name: str
    label_rule: LabelRule
    loss: Loss = field(default_factory=SquaredEuclidean)
    optimizer: Optimizer | SquaresOptimizer = field(default_factory=LBFGS)
    evaluations: int = 6000
    stop_loss: float = 1e-6
    priors: tuple[Prior, ...] = ()
    projection: Projection | None = None
    first_loss: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"name is {told(self.name)}, but must be a text that is not empty.")
        object.__setattr__(self, "label_rule", label_rule(self.label_rule))
        if isinstance(self.loss, type) or not callable(self.loss):
            raise InputError(
                f"loss is {told(self.loss)}, but must be a value of wdlg.losses, such as SquaredEuclidean()."
            )
        if isinstance(self.optimizer, type) or not (
            callable(getattr(self.optimizer, "init", None))
            and callable(getattr(self.optimizer, "update", None))
        ):
            raise InputError(
                f"optimizer is {told(self.optimizer)}, but must be a value of wdlg.optimizers, such as "
                "LBFGS()."
            )
        require_count("evaluations", self.evaluations)
        require_positive("stop_loss", self.stop_loss)
        if self.first_loss is not None:
            require_positive("first_loss", self.first_loss)
        if not isinstance(self.priors, tuple | list) or any(
            isinstance(one, type) or not callable(one) for one in self.priors
        ):
            raise InputError(
                f"priors is {told(self.priors)}, but must be a tuple of values of wdlg.attacks.priors."
            )
        object.__setattr__(self, "priors", tuple(self.priors))
        if getattr(self.optimizer, "takes_squares", False):
            self._require_squares()
        if self.projection is None:
            return
        if isinstance(self.projection, type) or not callable(self.projection):
            raise InputError(
                f"projection is {told(self.projection)}, but must be None or a value such as Box()."
            )
        if getattr(self.optimizer, "remembers_moves", False):
            raise InputError(
                f"projection is {self.projection}, but must be None for {type(self.optimizer).__name__}, "
                "which draws conclusions from moves that a projection would change."
            )

    def run(
        self, starts: Iterable[Start], *, observers: Sequence[Observer] = (), batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        """Numbers and results of attacks as they end; see :func:`wdlg.attacks.run.reconstruct_each`."""
        if getattr(self.optimizer, "takes_squares", False):
            return run_in_double(self._run, starts, observers, batch_size)
        return self._run(starts, observers, batch_size)

    def _run(
        self, starts: Iterable[Start], observers: Sequence[Observer], batch_size: int
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        return run(
            self._objective,
            self.optimizer,
            Endings(self.evaluations, self.stop_loss, self.first_loss),
            starts,
            observers=observers,
            batch_size=batch_size,
        )

    def _require_squares(self) -> None:
        """Refuse what a Gauss-Newton method cannot minimise."""
        name = type(self.optimizer).__name__
        if not isinstance(self.loss, SumOfSquares):
            raise InputError(
                f"loss is {told(self.loss)}, but must be a sum of squares for {name}, such as "
                "SquaredEuclidean() or SentEntries()."
            )
        if self.priors:
            raise InputError(
                f"priors is {told(self.priors)}, but must be empty for {name}, which minimises squares alone."
            )
        if self.first_loss is not None:
            raise InputError(
                f"first_loss is {told(self.first_loss)}, but must be None for {name}, whose steps do not "
                "depend on the unit of the loss."
            )

    def _objective(self, seen: Observation) -> Objective:
        return Objective(seen, self.label_rule, self.loss, self.priors, self.projection)


LM_EVALUATIONS = 200_000
"""What 200 iterations cost on a 28x28 image, or 52 on a 32x32x3 one; see :class:`LevenbergMarquardt`."""

LM_STOP_LOSS = 1e-20
"""Below what single precision of the shared gradient leaves of the loss: there an attack stalls instead."""

DLG = Optimised("DLG", Joint())
"""Zhu et al. (2019): image and label are optimised together."""

IDLG = Optimised("iDLG", RowSum())
"""Zhao et al. (2020): the label is read first, and then the image alone is optimised."""

WDLG = Optimised("WDLG", BiasSign(), loss=Wasserstein())
"""He et al. (2023), in one plain reading: another label rule, and a transport cost for a loss."""

LM = Optimised(
    "LM", BiasSign(), optimizer=LevenbergMarquardt(), evaluations=LM_EVALUATIONS, stop_loss=LM_STOP_LOSS
)
"""The loss of iDLG, minimised by Levenberg-Marquardt; not of the paper."""

METHODS = {"dlg": DLG, "idlg": IDLG, "wdlg": WDLG}
"""The three methods of the paper by their lower-case names."""


def with_settings(
    attack: Optimised, *, evaluations: int | None = None, learning_rate: float | None = None
) -> Optimised:
    """The same attack with another budget or learning rate; None keeps what it has.

    Raises:
        InputError: a value is out of range, or the optimiser has no learning rate.

    >>> with_settings(DLG, learning_rate=0.5).optimizer.learning_rate
    0.5
    """
    if evaluations is not None:
        attack = replace(attack, evaluations=evaluations)
    if learning_rate is not None:
        if not hasattr(attack.optimizer, "learning_rate"):
            raise InputError(
                f"learning_rate is {told(learning_rate)}, but {attack.optimizer} has none to set."
            )
        optimizer = replace(attack.optimizer, learning_rate=learning_rate)  # type: ignore[type-var]
        attack = replace(attack, optimizer=optimizer)
    return attack
