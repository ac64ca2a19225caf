"""The Jacobian J of what a participant sends by its image, and the normal matrix ``JᵀJ``.

``JᵀJ`` is the Gauss-Newton matrix of the squared distance to a shared gradient; with noise of variance s² on
every entry ``JᵀJ / s²`` is the Fisher information of the image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.func import jvp, vmap

from wdlg import compiled
from wdlg.networks.base import Network, Parameters, require_fitting
from wdlg.networks.lenet import LeNet
from wdlg.networks.lenet_normal import normal_matrix
from wdlg.networks.module import ModuleNetwork
from wdlg.updates import output_layer
from wdlg.updates.gradient import Gradient

DIRECTIONS = 64
"""Forward passes that are made together; bounds the memory."""

Sent = Callable[[Network, Parameters, Tensor, Tensor], Gradient]
"""What participants send of images (B, ...) with label probabilities, as rules of sharing compute it."""


def normal_matrices(
    network: Network, parameters: Parameters, images: Tensor, target: Tensor, *, by_labels: bool = False
) -> Tensor:
    """``JᵀJ`` with J the Jacobian of the gradient of the cross-entropy by the image, (B, n, n).

    J has a row for each entry of the gradient, those of the output layer among them. For a LeNet the matrix
    comes from the structure of its layers (``wdlg.networks.lenet_normal``), for any other network from n
    passes in forward mode.

    Args:
        network: the architecture.
        parameters: N = 1 or N = B networks.
        images: (B, channels, height, width).
        target: label probabilities (B, K).
        by_labels: whether the label logits, of which the target is the softmax, are variables as well. They
            come after the pixels, n = pixels + K.

    Raises:
        InputError: shapes, precisions or devices do not fit together.

    >>> network = LeNet((1, 8, 8), 10)
    >>> weights = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    >>> normal_matrices(network, weights, torch.full((1, 1, 8, 8), 0.5), torch.eye(10)[[3]]).shape
    torch.Size([1, 64, 64])
    """
    require_fitting(network, parameters, images, target)
    found = []
    with torch.no_grad(), compiled.one_blas_thread():
        for number in range(len(images)):
            place = torch.tensor([number], device=images.device)
            own = parameters if len(parameters) == 1 else parameters.select(place)
            if type(network) is LeNet:
                matrix = normal_matrix(network, own, images[place], target[place], by_labels=by_labels)
            else:
                at, along = derivatives(
                    of_one, network, own, images[place], target[place], by_labels=by_labels
                )
                matrix = inner_products(at, along)
            found.append(matrix)
    return torch.stack(found)


def of_one(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
    """The gradient of one image each."""
    return network.gradient(parameters, images, target)


def derivatives(
    sent: Sent,
    network: Network,
    parameters: Parameters,
    images: Tensor,
    target: Tensor,
    *,
    by_labels: bool = False,
) -> tuple[Gradient, Gradient]:
    """What one participant sends, and its derivatives along every variable, by forward mode.

    Args:
        sent: what is sent.
        network, parameters: one network, N = 1.
        images: (1, ...).
        target: label probabilities (1, ..., K).
        by_labels: whether their logits are variables too, after the pixels.

    Returns:
        The gradient (1 row), and a gradient of n rows: the derivatives of each of its parts. Products stay
        products: a row of factors has the derivatives of the factors.
    """
    if isinstance(network, LeNet):  # whose passes are written out for the reverse mode only
        network, parameters = _as_module(network, parameters)
    pixels = images.numel()
    outputs: list[Gradient] = []

    def parts(variables: Tensor) -> tuple[Tensor, ...]:
        labels = torch.softmax(variables[pixels:].view_as(target), dim=-1) if by_labels else target
        gradient = sent(network, parameters, variables[:pixels].view_as(images), labels)
        outputs.append(gradient)
        return tuple(gradient.parts())

    at = torch.cat((images.flatten(), *([target.log().flatten()] if by_labels else []))).detach()
    parts(at)
    gradient = outputs[0].detach()

    def along(direction: Tensor) -> tuple[Tensor, ...]:
        return tuple(part[0] for part in jvp(parts, (at,), (direction,))[1])

    load_forward_mode()
    every = torch.eye(len(at), dtype=at.dtype, device=at.device)
    changes = vmap(along, chunk_size=DIRECTIONS)(every)
    hidden, output = changes[: len(gradient.hidden)], changes[len(gradient.hidden) :]
    return gradient, Gradient(hidden, type(gradient.output)(*output))


@cache
def load_forward_mode() -> None:
    """torch warns its users of a part of its own that it loads for the first derivative in forward mode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
        jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def inner_products(gradient: Gradient, along: Gradient, weights: Sequence[Tensor] | None = None) -> Tensor:
    """``JᵀJ``, or ``Jᵀ diag(w) J``, from the derivatives of a gradient along n variables; (n, n).

    Args:
        gradient, along: of :func:`derivatives`.
        weights: w, of the shapes of ``gradient.tensors()``; None where all are 1. With weights the output
            layer's derivatives are written out, a part of the classes at a time.
    """
    if weights is None:
        total = output_layer.inner_products(gradient.output, along.output)
        for change in along.hidden:
            rows = change.flatten(1)
            total = total + rows @ rows.T
        return total
    *of_hidden, of_weight, of_bias = weights
    total = _weighted(along.bias, of_bias)
    for change, weight in zip(along.hidden, of_hidden, strict=True):
        total = total + _weighted(change, weight)
    for some, weight in zip(
        output_layer.derivatives_of_weight(gradient.output, along.output),
        of_weight.split(1, dim=1),
        strict=True,
    ):
        total = total + _weighted(some, weight)
    return total


def _weighted(rows: Tensor, weight: Tensor) -> Tensor:
    rows = rows.flatten(1)
    return (rows * weight.flatten()) @ rows.T


def _as_module(network: LeNet, parameters: Parameters) -> tuple[ModuleNetwork, Parameters]:
    """The same network with gradients that can be differentiated in forward mode."""
    module = ModuleNetwork(network.as_module(parameters), network.image_shape)
    return module, module.parameters()
