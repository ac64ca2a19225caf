"""The private image in closed form: a network of the paper's kind undone layer by layer, from the top down.

DLG's network is a stack of convolutions whose activations can be undone, and a linear output layer. Its gradient
for one image holds the image, and nothing needs to be searched for:

1. The gradient of the output layer is ``error ⊗ features``: quotients give the features, the activations of the
   last convolution (Phong et al. 2018), and the label is read off the error (Algorithm 1, line 1, of the paper).
2. Undo the activation: ``z = act⁻¹(a)``.
3. The derivative by the sums below: ``delta = act'(z) * (weights of the layer above)ᵀ (delta above)``.
4. The input of the convolution solves its forward and its gradient equations together
   (:mod:`wdlg.attacks.exact_layers`). It is what the layer below handed on: go on with 2, down to the image.

An error of a grows by ``1 / act'(z)`` on its way to z. So each forward equation is weighted by ``act'(z)``: a
unit near saturation says little. R-GAP (Zhu and Blaschko 2021) goes down in the same way and needs no label; the
weights, and that both kinds of equations are solved at once and counted by stride phase, are new here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import BATCH_SIZE, Observation, Observer, Reconstruction, Start, Status
from wdlg.attacks.exact_solve import Equations, solve
from wdlg.attacks.exact_stack import Activation, Stack, stack_of
from wdlg.attacks.labels import UNDECIDED, BiasSign, LabelRule, label_rule
from wdlg.errors import InputError, require_text
from wdlg.networks.base import Network, Parameters
from wdlg.rows import Rows
from wdlg.sharing.federated import FedSGD
from wdlg.updates.distance import norm, squared_euclidean
from wdlg.updates.gradient import Gradient

TOLERANCE = {torch.float32: 1e-9, torch.float64: 1e-14}
"""To which each layer is solved: well below what the precision of the gradient leaves of it."""


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
    """

    images: Tensor
    labels: Tensor
    residual: Tensor
    condition: Tensor
    misfit: Tensor

    def __len__(self) -> int:
        return len(self.images)


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
    parameters, gradient = _double(observation.parameters), observation.gradient.double()
    images, condition, misfit = _descend(stack, parameters, gradient, TOLERANCE[precision])
    images = images.unflatten(2, observation.network.image_shape[1:])
    residual = _residual(observation.network, parameters, gradient, images, labels)
    return Inversion(images, labels, residual, condition, misfit)


def _descend(
    stack: Stack, parameters: Parameters, gradient: Gradient, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, channels, pixels), and condition and misfit of each layer, (B, layers)."""
    error = gradient.bias
    squared = error.square().sum(1, keepdim=True)
    # Of a saturated softmax nothing comes back: 0 / 0 is not a number, and is told as such.
    values = torch.einsum("bkm,bk->bm", gradient.last_weight, error) / squared
    upstream = parameters.output_layer.times(error)
    condition, misfit = [], []
    for number in reversed(range(len(stack.layers))):
        layer, activation = stack.layers[number], stack.activations[number]
        weight, bias = parameters.tensors[2 * number : 2 * number + 2]
        weight = weight.reshape(len(weight), layer.filters, -1)
        values = values.reshape(-1, layer.filters, layer.places)
        sums, slope = _undone(activation, values)
        delta = upstream.reshape(values.shape) * slope
        shared = gradient.hidden[2 * number]
        trust = slope / _size(values)
        unit = 1 / _size(shared)
        found = solve(
            Equations(layer, weight, trust, delta * unit),
            trust * (sums - bias[:, :, None]),
            shared * unit,
            tolerance=tolerance,
        )
        values = found.inputs
        condition.insert(0, found.condition)
        misfit.insert(0, found.misfit)
        upstream = layer.folded(weight.transpose(1, 2) @ delta)
    return values, torch.stack(condition, dim=1), torch.stack(misfit, dim=1)


def _undone(activation: Activation, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and slope; 0 for both where a value is out of the range, so that nothing is said there."""
    held = activation.holds(values)
    inside = torch.where(held, values, 0.5 * activation.high if activation.name == "sigmoid" else 0.0)
    sums, slope = activation.sums(inside), activation.slope(inside)
    lost = ~held & ~values.isnan()
    sums, slope = (torch.where(lost, 0.0, one) for one in (sums, slope))
    return sums.where(~values.isnan(), torch.nan), slope


def _size(parts: Tensor) -> Tensor:
    """Root mean square of each image's, (B, 1, 1), to measure errors by; never 0."""
    return parts.square().mean((1, 2), keepdim=True).sqrt().clamp_min(torch.finfo(parts.dtype).tiny)


def _double(parameters: Parameters) -> Parameters:
    return Parameters(
        tuple(tensor.double() for tensor in parameters.tensors),
        tuple(buffer.double() if buffer.is_floating_point() else buffer for buffer in parameters.buffers),
    )


def _residual(
    network: Network, parameters: Parameters, shared: Gradient, images: Tensor, labels: Tensor
) -> Tensor:
    usable = (labels != UNDECIDED) & torch.isfinite(images).flatten(1).all(1)
    target = F.one_hot(labels.clamp_min(0), network.classes).to(images.dtype)
    pictures = torch.where(usable[:, None, None, None], images, 0.0)
    again = network.gradient(parameters, pictures, target)
    distance = squared_euclidean(again, shared).clamp_min(0).sqrt() / norm(shared)
    return torch.where(usable, distance, torch.nan)
