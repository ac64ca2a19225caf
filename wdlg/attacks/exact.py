"""The private image in closed form: a network of the paper's kind undone layer by layer, from the top down.

DLG's network is a stack of convolutions whose activations can be undone, and a linear output layer. Its
gradient for one image holds the image, and nothing needs to be searched for:

1. The gradient of the output layer is ``error ⊗ features``: quotients give the features, the activations of
   the last convolution (Phong et al. 2018), and the label is read off the error (Algorithm 1, line 1, of the
   paper).
2. Undo the activation: ``z = act⁻¹(a)``.
3. The derivative by the sums below: ``delta = act'(z) * (weights of the layer above)ᵀ (delta above)``.
4. The input of the convolution solves its forward and its gradient equations together
   (:mod:`wdlg.attacks.exact_layers`). It is what the layer below handed on: go on with 2, down to the image.

ReLU has no inverse where it is 0, and needs none there: see :mod:`wdlg.attacks.exact_stack`. But values that
were solved for are 0 only up to an error, and one unit that is taken for what it is not spoils the layers
below. ReLU's values are never negative: those that come out negative show how large the error is. If the
equations below then contradict each other, other thresholds are tried.

An error of a grows by ``1 / act'(z)`` on its way to z. So each forward equation is weighted by ``act'(z)``: a
unit near saturation says little.

Others have gone down in this way. R-GAP (Zhu and Blaschko 2021) solves both kinds of equations by dense least
squares; its code is for two classes, layers without bias, and activations of the kind of LeakyReLU, so not
for this network. R-CONV (2024; its code of 2025) takes the gradient equations alone. On the authors' own
network, with wider layers, it reached an MSE of 7e-15 in 3.8 s from gradients in double precision, and 3e8
and 1e9 from those in single precision; on this network it ends in an error, since its second convolution has
a phase with 48 equations for 64 pixels. These numbers are ours, of one or two images with the authors'
program, and are not computed in this repository. What is added here: equations weighted by what rounding does
to them, counted by stride phase, solved without a dense matrix; and the two questions whether the picture
explains the gradient, and whether it alone does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from wdlg import compiled
from wdlg.attacks.base import BATCH_SIZE, Observation, Observer, Reconstruction, Start, Status
from wdlg.attacks.exact_layers import Layer
from wdlg.attacks.exact_solve import MOST_ITERATIONS, Equations, Solution, determined, solve
from wdlg.attacks.exact_stack import Activation, Stack, stack_of
from wdlg.attacks.gauss_newton import doubled, refined, residual
from wdlg.attacks.labels import BiasSign, LabelRule, label_rule
from wdlg.errors import InputError, require_count, require_text
from wdlg.networks.base import Parameters
from wdlg.rows import Rows
from wdlg.sharing.federated import FedSGD
from wdlg.threads import one_torch_thread
from wdlg.updates.gradient import Gradient

TOLERANCE = {torch.float32: 1e-8, torch.float64: 1e-15}
"""To which each layer is solved: well below what the precision of the gradient leaves of it."""

EXPLAINED = 1e-4
"""A picture explains a gradient if its own, with the label, is within this relative distance of it.

Rounding to float32 puts every entry off by up to 6e-8 of itself. A layer's equations magnify a relative error
by their condition at most, and so do all layers of LeNet together by 60 (28x28) to 3,000 (32x32): up to 2e-4
for the worst of all errors, and 4e-7 to 1e-5 for those that happen. Gradients of two images, with noise of a
level from 1e-4, pruned or quantised leave 1e-2 and more.
"""

REST = 4.0
"""A value of ReLU up to so many times the largest error that is seen in its layer is taken for 0."""

OTHER_RESTS = (2.0, 1.0, 0.5, 0.25, 10.0, 30.0, 100.0)
"""Tried in turn where equations contradict each other; the least misfit decides."""

CONTRADICTION = 1e3
"""Equations whose misfit is above so many times the tolerance contradict each other."""

CHUNK = 8
"""Images whose equations are solved together. More do not fit into a processor's cache, and are no faster."""


@dataclass(frozen=True)
class Inversion(Rows):
    """What the closed form finds for B gradients.

    Attributes:
        images: (B, channels, height, width), in double precision, not clamped to [0, 1].
        labels: (B,), ``labels.UNDECIDED`` where there is none.
        residual: distance of the gradient of image and label from the shared one, over the norm of the shared
            one, (B,). NaN where there is no label, or no finite image.
        condition: of the equations of each convolution, first to last, (B, layers); see
            :class:`~wdlg.attacks.exact_solve.Solution`.
        misfit: how far each convolution's equations contradict each other, (B, layers).
        determined: whether the equations of the first convolution have this image alone for a solution, (B,).
            Where not, others have the same gradient; where a later convolution leaves its input open, what is
            found does not fit the layers below, and shows in the residual.
        handed_on: what each convolution handed on, first to last, (B, filters, height, width) each: found on
            the way down, the last of them first. :meth:`~wdlg.attacks.exact_stack.Stack.handed_on` has the
            true ones.
    """

    images: Tensor
    labels: Tensor
    residual: Tensor
    condition: Tensor
    misfit: Tensor
    determined: Tensor
    handed_on: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Exact:
    """The closed form above as an attack; its loss is the ``residual`` of an :class:`Inversion`.

    It ends "converged" where the residual is below ``EXPLAINED`` and no other image has the same equations. A
    gradient that breaks an assumption (noise, several images, units so saturated that they hide their inputs)
    has a picture, too, but that does not explain the gradient, or others do so as well: the status is
    "unsure". No dummy is needed.

    Args:
        label_rule: how labels are read, see :class:`~wdlg.attacks.optimised.Optimised`; not the joint rule.
        refine: Gauss-Newton steps on all entries of the gradient that follow, see
            :func:`~wdlg.attacks.gauss_newton.refined`. The closed form takes each layer's equations for exact
            one after the other; with noise these steps are worth a factor of 20 or so of the MSE.
        name: what tables and figures call it.

    Raises:
        InputError: the joint rule, or a number out of range; on use, what :func:`invert` refuses.

    >>> import wdlg
    >>> cases = wdlg.draw(wdlg.data.load("digits"), wdlg.Design(networks=1))
    >>> found = wdlg.attack(cases.observation(), Exact())
    >>> bool((found.images - cases.truth).square().mean() < 1e-9)
    True
    """

    label_rule: LabelRule = field(default_factory=BiasSign)
    refine: int = 0
    name: str = "exact"

    loss = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_rule", label_rule(self.label_rule))
        require_count("refine", self.refine, at_least=0)
        require_text("name", self.name)
        if self.label_rule.joint:
            raise InputError(
                "label_rule is joint, but nothing is optimised here: take one that reads labels."
            )

    @property
    def evaluations(self) -> int:
        """One of the gradient of the picture, and one for each step of refinement."""
        return 1 + self.refine

    def run(
        self, starts: Iterable[Start], *, observers: Sequence[Observer] = (), batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Tensor, Reconstruction]]:
        """Numbers and results, some at a time; see :func:`wdlg.attacks.run.reconstruct_each`."""
        begun = 0
        for start in starts:
            for index in torch.arange(len(start)).split(min(batch_size, CHUNK)):
                number = begun + index
                trace, result = self._solve(start.observation.select(index))
                for evaluation, (images, loss) in enumerate(trace):
                    made = torch.full_like(number, evaluation)
                    for observe in observers:
                        observe(number, made, made, images, loss)
                yield number, result
            begun += len(start)

    def _solve(self, observation: Observation) -> tuple[list[tuple[Tensor, Tensor]], Reconstruction]:
        """Images and losses of all evaluations, and the result, in the precision of the observation."""
        started = time.perf_counter()
        like = observation.parameters.tensors[0]
        with one_torch_thread(), compiled.one_blas_thread():
            found = invert(observation, self.label_rule)
            trace = [(found.images, found.residual)]
            for _ in range(self.refine):
                trace.append(refined(observation, trace[-1][0], found.labels))
        trace = [(images.to(like), loss.to(like)) for images, loss in trace]
        result = Reconstruction.in_steps(trace, found.labels, seconds=time.perf_counter() - started)
        sure = found.determined & (result.loss <= EXPLAINED)
        status = torch.where((result.status == Status.CONVERGED) & ~sure, Status.UNSURE.value, result.status)
        return trace, replace(result, status=status)


def invert(observation: Observation, rule: LabelRule) -> Inversion:
    """Undo the network for each of B gradients.

    Args:
        observation: what the attacker sees.
        rule: by which labels are read.

    Raises:
        InputError: the network cannot be undone (:func:`~wdlg.attacks.exact_stack.stack_of`), or what is
            shared is not one gradient of one image.
    """
    stack = stack_of(observation.network)
    if observation.images != 1:
        raise InputError(f"images is {observation.images}, but must be 1: a sum of images is not undone.")
    if observation.sharing != FedSGD():
        raise InputError(
            f"sharing is {observation.sharing}, but must be FedSGD(): a change of weights after several "
            "steps is not the gradient of one network."
        )
    labels = rule(observation.gradient)
    precision = observation.gradient.bias.dtype
    exact = doubled(observation)
    # Its many small operations wait for each other's threads, on a busy machine for seconds.
    with one_torch_thread(), compiled.one_blas_thread():
        images, condition, misfit, alone, handed_on = _descend(
            stack, exact.parameters, exact.gradient, TOLERANCE[precision]
        )
        images = images.unflatten(2, observation.network.image_shape[1:])
        left = residual(exact, images, labels)
    return Inversion(images, labels, left, condition, misfit, alone, handed_on)


def _descend(
    stack: Stack, parameters: Parameters, gradient: Gradient, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Images (B, channels, pixels), and the last four attributes of an :class:`Inversion`."""
    error = gradient.bias
    squared = error.square().sum(1, keepdim=True)
    # Of a saturated softmax nothing comes back: 0 / 0 is not a number, and is told as such.
    values = torch.einsum("bkm,bk->bm", gradient.last_weight, error) / squared
    upstream = parameters.output_layer.times(error)
    condition: list[Tensor] = []
    misfit: list[Tensor] = []
    handed_on: list[Tensor] = []
    above: Solution | None = None
    for number in reversed(range(len(stack.layers))):
        layer, activation = stack.layers[number], stack.activations[number]
        weight, bias = parameters.tensors[2 * number : 2 * number + 2]
        weight = weight.reshape(len(weight), layer.filters, -1)
        values = values.reshape(-1, layer.filters, layer.places)
        handed_on.insert(0, values.unflatten(2, layer.output_size))
        known = _Known(layer, activation, weight, bias, values, upstream, gradient.hidden[2 * number])
        slope, equations, found = known.solved(known.held(REST), tolerance)
        if activation.rests and above is not None:
            slope = known.improved(slope, found, above.iterations < MOST_ITERATIONS, tolerance)
            equations = known.equations(slope)
        values = found.inputs
        condition.insert(0, found.condition)
        misfit.insert(0, found.misfit)
        upstream = layer.folded(weight.transpose(1, 2) @ known.delta(slope))
        above = found
    return (
        values,
        torch.stack(condition, dim=1),
        torch.stack(misfit, dim=1),
        determined(equations),
        tuple(handed_on),
    )


@dataclass(frozen=True)
class _Known(Rows):
    """What is known of one layer on the way down, for B images: the layer, and what is above it.

    Attributes:
        layer, activation: of it.
        weight: (N, filters, channels * taps), N = 1 or B.
        bias: (N, filters).
        values: what it hands on, (B, filters, places).
        upstream: derivative of the loss by these.
        shared: gradient of the weights, (B, filters, channels * taps).
    """

    layer: Layer
    activation: Activation
    weight: Tensor
    bias: Tensor
    values: Tensor
    upstream: Tensor
    shared: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def delta(self, slope: Tensor) -> Tensor:
        """Derivative of the loss by the sums, from the slope of the activation there."""
        return self.upstream.reshape(self.values.shape) * slope

    def equations(self, slope: Tensor) -> Equations:
        """Of the layer's input, weighted by what is known how well."""
        unit = 1 / _size(self.shared)
        return Equations(self.layer, self.weight, slope / _size(self.values), self.delta(slope) * unit)

    def held(self, rest: float) -> Tensor:
        """Where sums can be told from values; ``rest`` as of :data:`REST`."""
        error = None
        if self.activation.rests:
            error = rest * (self.activation.low - self.values).amax((1, 2), keepdim=True).clamp_min(0)
        return self.activation.holds(self.values, error)

    def solved(self, held: Tensor, tolerance: float) -> tuple[Tensor, Equations, Solution]:
        """The slope, and the layer's input with its equations."""
        sums, slope = _undone(self.activation, self.values, held)
        equations = self.equations(slope)
        forward = equations.trust * (sums - self.bias[:, :, None])
        return (
            slope,
            equations,
            solve(equations, forward, self.shared / _size(self.shared), tolerance=tolerance),
        )

    def improved(self, slope: Tensor, found: Solution, possible: Tensor, tolerance: float) -> Tensor:
        """Where equations contradict each other, take other units for 0, and keep the least misfit.

        Args:
            slope, found: with the first threshold; what is better is put in its place.
            possible: where the values were determined, (B,); where not, nothing of this helps.
            tolerance: to which equations are solved.

        Returns:
            The slope that goes with what is found.
        """
        each = replace(
            self, weight=self.weight.expand(len(self), -1, -1), bias=self.bias.expand(len(self), -1)
        )
        for rest in OTHER_RESTS:
            (rows,) = (possible & (found.misfit > CONTRADICTION * tolerance)).nonzero(as_tuple=True)
            if not len(rows):
                break
            some = each.select(rows)
            other_slope, _, other = some.solved(some.held(rest), tolerance)
            better = other.misfit < found.misfit[rows]
            slope[rows[better]] = other_slope[better]
            found.put(rows[better], other.select(better))
        return slope


def _undone(activation: Activation, values: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and slope; 0 for both where values are not held, so that nothing is said there."""
    inside = torch.where(held, values, activation.middle)
    sums, slope = activation.sums(inside), activation.slope(inside)
    missing = values.isnan()
    sums, slope = (torch.where(held, one, 0.0) for one in (sums, slope))
    return torch.where(missing, torch.nan, sums), torch.where(missing, torch.nan, slope)


def _size(parts: Tensor) -> Tensor:
    """Root mean square of each image's, (B, 1, 1), to measure errors by; never 0."""
    return parts.square().mean((1, 2), keepdim=True).sqrt().clamp_min(torch.finfo(parts.dtype).tiny)
