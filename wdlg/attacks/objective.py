"""What an attack minimises, as a function of its variables: dummy images, and label logits where unknown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg import compiled
from wdlg.attacks.base import Observation, Start
from wdlg.attacks.labels import LabelRule
from wdlg.errors import InputError
from wdlg.losses import Loss, SquaredEuclidean, SumOfSquares
from wdlg.networks.base import Parameters
from wdlg.networks.jacobian import (
    derivatives,
    inner_products,
    mean_normal_matrix,
    normal_matrices,
)
from wdlg.networks.lenet import LeNet
from wdlg.optimizers import State
from wdlg.shapes import require_alike, require_tensor
from wdlg.sharing.federated import FedSGD
from wdlg.updates.distance import squared_euclidean
from wdlg.updates.gradient import Gradient
from wdlg.updates.output_layer import Product

STRIDE = 0.1
"""The part of a step over which its bend is measured: more than that of its first point, as is common."""


@dataclass(frozen=True)
class Objective:
    """Matching loss plus priors, for all attacks of one kind of observation.

    Attributes:
        seen: an observation, of which everything counts that all have in common: network, sharing, images.
        label_rule, loss, priors, projection: of the attack.
    """

    seen: Observation
    label_rule: LabelRule
    loss: Loss
    priors: tuple[Callable[[Tensor], Tensor], ...] = ()
    projection: Callable[[Tensor], Tensor] | None = None

    def require_dummies(self, start: Start) -> None:
        """Raise :class:`InputError` unless the dummies of a start fit its observation, and that this."""
        observation = start.observation
        common = (observation.network, observation.sharing, observation.images)
        if common != (self.seen.network, self.seen.sharing, self.seen.images):
            raise InputError(
                "starts have observations of several networks or ways of sharing, but all must be of one."
            )
        count = len(observation)
        dummies = [("dummy_images", start.dummy_images, (count, *observation.image_shape))]
        if self.label_rule.joint:
            if start.dummy_labels is None:
                raise InputError("dummy_labels is missing, but the joint rule needs starting label logits.")
            dummies.append(("dummy_labels", start.dummy_labels, (count, *observation.label_shape)))
        for name, dummy, shape in dummies:
            require_tensor(name, dummy, shape)
            require_alike(name, dummy, "parameters", observation.parameters.tensors[0])

    def labels(self, observation: Observation) -> Tensor:
        """Labels that the rule reads, (B,) or (B, images); ``UNDECIDED`` where it reads none."""
        return self.label_rule(observation.gradient, observation.images)

    def targets(self, labels: Tensor, like: Tensor) -> Tensor | None:
        """Label probabilities of known labels, (B, K) or (B, images, K); None where they are optimised."""
        if self.label_rule.joint:
            return None
        return F.one_hot(labels, self.seen.network.classes).to(like.dtype)

    def variables(self, start: Start) -> Tensor:
        """The point that attacks start from, (B, n); a copy."""
        x = start.dummy_images.flatten(1)
        if self.label_rule.joint:
            assert start.dummy_labels is not None
            return torch.cat((x, start.dummy_labels.flatten(1)), dim=1)
        return x.clone()

    def images(self, x: Tensor) -> Tensor:
        """The images among variables (B, n)."""
        return x[:, : self._pixels].unflatten(1, self.seen.image_shape)

    def logits(self, x: Tensor) -> Tensor:
        """The label logits among variables (B, n), where labels are optimised."""
        return x[:, self._pixels :].unflatten(1, self.seen.label_shape)

    def __call__(
        self, x: Tensor, targets: Tensor | None, parameters: Parameters, shared: Gradient
    ) -> tuple[Tensor, Tensor]:
        """Loss (B,) and its gradient by the variables, both without a graph.

        Args:
            x: variables (B, n).
            targets: of known labels, see :meth:`targets`.
            parameters: N = 1 or N = B networks.
            shared: B gradients.
        """
        if targets is not None and self._has_compiled_form(shared, x, *parameters.tensors):
            from wdlg.attacks.compiled_objective import squared_distance

            assert isinstance(self.seen.network, LeNet)
            loss, slope = squared_distance(self.seen.network, parameters, self.images(x), targets, shared)
            return loss, slope.flatten(1)
        variables = x.detach().requires_grad_()
        loss = self.loss(self._dummy(variables, targets, parameters), shared)
        for prior in self.priors:
            loss = loss + prior(self.images(variables))
        (slope,) = torch.autograd.grad(loss.sum(), variables)
        return loss.detach(), slope

    def normal_matrix(
        self,
        x: Tensor,
        targets: Tensor | None,
        parameters: Parameters,
        shared: Gradient,
        dtype: torch.dtype,
    ) -> Tensor:
        """``JᵀJ`` of one attack's loss as a sum of squares, with their weights, (n, n) of that type.

        Other arguments as of a call, with B = 1.
        """
        assert isinstance(self.loss, SumOfSquares)
        x, shared = x.to(dtype), shared.in_precision(dtype)
        if parameters.tensors[0].dtype != dtype:
            parameters = parameters.in_precision(dtype)
        images, joint = self.images(x), targets is None
        labels = torch.softmax(self.logits(x), dim=-1) if targets is None else targets.to(dtype)
        weights = self.loss.square_weights(shared)
        network, sharing = self.seen.network, self.seen.sharing
        if weights is None and type(sharing) is FedSGD and self.seen.images == 1:
            (found,) = normal_matrices(network, parameters, images, labels, by_labels=joint)
            return found
        if weights is None and type(sharing) is FedSGD and not joint:
            return mean_normal_matrix(network, parameters, images, labels)
        at, along = derivatives(sharing, network, parameters, images, labels, by_labels=joint)
        return inner_products(at, along, weights)

    def bend(
        self, x: Tensor, targets: Tensor | None, parameters: Parameters, shared: Gradient, step: Tensor
    ) -> Tensor:
        """``Jᵀ r''`` with r'' the second derivative of the residual r along a step, (B, n).

        From three first derivatives, since the gradient of ``|r(x) - r(y)|²`` by x is ``2 Jᵀ (r(x) - r(y))``,
        whatever was shared: y is a :data:`STRIDE` of the step ahead, and as much behind. Weights are those of
        the shared gradient.

        Args:
            x, targets, parameters, shared: as of a call, of a loss that is a sum of squares.
            step: (B, n).
        """
        assert isinstance(self.loss, SumOfSquares)
        weights = self.loss.square_weights(shared)
        ends = [
            self._dummy(x.detach() + way * step, targets, parameters).detach() for way in (STRIDE, -STRIDE)
        ]
        variables = x.detach().requires_grad_()
        here = self._dummy(variables, targets, parameters)
        apart = torch.stack([_squared(here, end, weights) for end in ends]).sum()
        (slope,) = torch.autograd.grad(apart, variables)
        return -slope / (2 * STRIDE**2)

    def _dummy(self, variables: Tensor, targets: Tensor | None, parameters: Parameters) -> Gradient:
        """What would be shared of these variables (B, n)."""
        labels = torch.softmax(self.logits(variables), dim=-1) if targets is None else targets
        return self.seen.sharing(self.seen.network, parameters, self.images(variables), labels)

    def projected(self, state: State) -> State:
        """The optimiser's state with its images where the projection puts them."""
        if self.projection is None:
            return state
        x = state.x.clone()
        x[:, : self._pixels] = self.projection(self.images(x)).flatten(1)
        return replace(state, x=x)

    def _has_compiled_form(self, shared: Gradient, *tensors: Tensor) -> bool:
        """True for what most attacks are: the squared distance of gradients of one image of LeNet each."""
        return (
            type(self.loss) is SquaredEuclidean
            and type(self.seen.network) is LeNet
            and type(self.seen.sharing) is FedSGD
            and self.seen.images == 1
            and not self.priors
            and isinstance(shared.output, Product)
            and compiled.fits(*tensors)
        )

    @property
    def _pixels(self) -> int:
        return math.prod(self.seen.image_shape)


def _squared(ours: Gradient, theirs: Gradient, weights: list[Tensor] | None) -> Tensor:
    """Squared distance of gradients with weights of their entries, (B,)."""
    if weights is None:
        return squared_euclidean(ours, theirs)
    parts = zip(weights, ours.tensors(), theirs.tensors(), strict=True)
    return torch.stack([(weight * (one - other).square()).sum((1, 2)) for weight, one, other in parts]).sum(0)
