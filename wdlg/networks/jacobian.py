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
from wdlg.errors import InputError
from wdlg.networks.base import Network, Parameters, require_fitting, require_fitting_batches
from wdlg.networks.lenet import LeNet
from wdlg.networks.lenet_normal import normal_matrix, product
from wdlg.networks.module import ModuleNetwork
from wdlg.updates import output_layer
from wdlg.updates.gradient import Gradient
from wdlg.updates.output_layer import OutputGradient, Product

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


def mean_normal_matrix(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Tensor:
    """``JᵀJ`` with J the Jacobian of one mean gradient by all its N images, (n, n) for n = N x pixels.

    J has a block of columns for each image. Where images do not see each other it is the Jacobian of the
    image's own gradient over N, which takes N times less work than passes through all images at once. At the
    output layer an image's gradient is a product ``e ⊗ f``, with derivatives E and A of its factors by the
    pixels, a row for each; blocks i and j then bring ::

        (f_i·f_j + 1) E_i E_jᵀ + (e_i·e_j) A_i A_jᵀ + (E_i e_j) (A_j f_i)ᵀ + (A_i f_j) (E_j e_i)ᵀ

    and no K x M matrix is differentiated. Images that see each other, through the statistics of a batch, are
    differentiated together.

    Args:
        network: the architecture.
        parameters: one network.
        images: of one participant, (1, N, channels, height, width).
        target: label probabilities (1, N, K).

    Raises:
        InputError: shapes, precisions or devices do not fit together.

    >>> network = LeNet((1, 8, 8), 10)
    >>> weights = network.initial_parameters(generator=torch.Generator().manual_seed(0))
    >>> mean_normal_matrix(network, weights, torch.full((1, 2, 1, 8, 8), 0.5), torch.eye(10)[None, 3:5]).shape
    torch.Size([128, 128])
    """
    require_fitting_batches(network, parameters, images, target)
    if len(images) != 1 or len(parameters) != 1:
        raise InputError(
            f"images holds {len(images)} participants and parameters {len(parameters)} networks, but must "
            "hold one each."
        )
    if isinstance(network, LeNet):  # once for all images
        network, parameters = _as_module(network, parameters)
    with compiled.one_blas_thread():
        if getattr(network, "mode", "evaluation") != "evaluation":
            return inner_products(*derivatives(of_several, network, parameters, images, target))
        count = images.shape[1]
        each = [derivatives(of_one, network, parameters, images[:, n], target[:, n]) for n in range(count)]
        total = _output_blocks([at.output for at, _ in each], [along.output for _, along in each])
        for parts in zip(*(along.hidden for _, along in each), strict=True):
            rows = torch.cat([part.flatten(1) for part in parts])
            total += product(rows, rows.T)
        return total.div_(count**2)


def _output_blocks(at: Sequence[OutputGradient], along: Sequence[OutputGradient]) -> Tensor:
    """What the output layer's gradients of N images bring to their joint ``JᵀJ``, times N²; (n, n)."""
    assert all(isinstance(one, Product) for one in (*at, *along))  # of one image each
    errors, features = (torch.cat([getattr(one, name) for one in at]) for name in ("error", "features"))
    by_errors = torch.cat([one.error for one in along])  # type: ignore[union-attr]
    by_features = torch.cat([one.features for one in along])
    pixels = len(by_errors) // len(at)

    def spread(products: Tensor) -> Tensor:
        """A number for each pair of images (N, N) to each pair of their pixels."""
        return products.repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)

    total = product(by_errors, by_errors.T) * spread(features @ features.T + 1)
    total += product(by_features, by_features.T) * spread(errors @ errors.T)
    # (E_i e_j) (A_j f_i)ᵀ: of each pixel of i with the error of j, and of each pixel of j the other way.
    crossed = (by_errors @ errors.T).repeat_interleave(pixels, 1)
    crossed *= (by_features @ features.T).T.repeat_interleave(pixels, 0)
    return total.add_(crossed).add_(crossed.T)


def of_one(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
    """The gradient of one image each."""
    return network.gradient(parameters, images, target)


def of_several(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
    """The mean gradient of several images each."""
    return network.mean_gradient(parameters, images, target)


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
