"""Whether a torch module is a classifier that can be attacked: each question is one function, which refuses.

A module may do anything. What is computed here of it is right only where it is plain: weights of its own, one
linear layer at the end whose result is what the module gives, nothing random, nothing that changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call

from wdlg.errors import InputError
from wdlg.networks.base import Parameters
from wdlg.networks.functional import TorchNetwork
from wdlg.shapes import describe

CLOSE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""How far the gradient, and the derivative of its square by the images, may be from those of autograd,
relative to their norms. Rounding is a tenth of it; what this is to find, such as another scale of the class
scores, is of the size of the gradient itself."""


def require_readable_weights(module: nn.Module) -> None:
    """Refuse weights that are no plain numbers of one precision, or that two layers share."""
    named = list(module.named_parameters(remove_duplicate=False))
    if any(nn.parameter.is_lazy(tensor) for _, tensor in named):
        raise InputError(
            "module has weights without a shape yet, but must have been called once (lazy layers)."
        )
    kinds = {(tensor.dtype, tensor.device.type) for _, tensor in named}
    if len(kinds) > 1 or any(dtype not in CLOSE or device == "meta" for dtype, device in kinds):
        came = " and ".join(
            sorted(f"{str(dtype).removeprefix('torch.')} on {device}" for dtype, device in kinds)
        )
        raise InputError(
            f"module holds {came}, but must hold float32 or float64 alone, on one device: "
            "module.float() makes it so."
        )
    first: dict[int, str] = {}
    for name, tensor in named:
        if id(tensor) in first:
            raise InputError(
                f"module ties {name} to {first[id(tensor)]}, but must have a weight of its own in each "
                "place: the gradient of a shared one is a sum."
            )
        first[id(tensor)] = name


def require_linear_output(module: nn.Module) -> None:
    """Refuse a module whose last parameters are not those of a linear layer with bias."""
    names = [name for name, _ in module.named_parameters()]
    found = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    if not found or found[0].bias is None or module.get_parameter(names[-1]) is not found[0].bias:
        raise InputError(
            f"module is a {type(module).__name__} whose last parameter is "
            f"{names[-1] if names else 'missing'}, but must end in a torch.nn.Linear with bias, "
            "registered last."
        )


def require_plain_scores(network: TorchNetwork, module: nn.Module) -> None:
    """Refuse class scores that are not what the last linear layer gives, once, the same for the same images.

    Args:
        network: what holds the module.
        module: in the mode in which it is attacked; its weights need no gradient.
    """
    images = _images(network, next(module.parameters()))
    before = [buffer.clone() for buffer in module.buffers()]
    scores, seen = _scores_and_outputs(network, module, images)
    again, _ = _scores_and_outputs(network, module, images)
    if not isinstance(scores, Tensor) or scores.shape != (2, network.classes):
        raise InputError(
            f"module gives {describe(scores)} for 2 images, but must give class scores "
            f"(2, {network.classes}), as many as the linear layer that is registered last."
        )
    if scores.requires_grad:
        raise InputError("module computes with weights of another module, but must hold what it uses.")
    if not torch.equal(scores, again):
        raise InputError(
            "module gives other class scores for the same images a second time, but must draw no random "
            f"numbers in {network.mode} mode (functional dropout needs training=self.training)."
        )
    if len(seen) != 1:
        raise InputError(f"module uses its last linear layer {len(seen)} times, but must use it once.")
    values, place = seen[0]
    # The very numbers, in the very place: a ReLU leaves scores equal that happen to be positive.
    if not torch.equal(scores, values) or scores.data_ptr() != place:
        raise InputError(
            "module gives other class scores than the linear layer that is registered last, but must end "
            "in that layer: take a softmax, a scale or an activation after it out."
        )
    if not all(torch.equal(buffer, old) for buffer, old in zip(module.buffers(), before, strict=True)):
        raise InputError(f"module changes its buffers in {network.mode} mode, but must change nothing.")


def require_gradient_of_autograd(network: TorchNetwork, module: nn.Module, parameters: Parameters) -> None:
    """Refuse a module whose gradient, as computed here, is not that of autograd, or not its derivative.

    In evaluation mode of two images each by itself, in training mode of both together. The derivative by the
    images, of the gradient's square, is what an attack follows.
    """
    close = CLOSE[parameters.tensors[0].dtype]
    try:
        first, second = _missed_by_autograd(network, module, parameters)
    except RuntimeError as error:
        raise InputError(
            f"module cannot be differentiated by torch.func, twice and image by image ({first_line(error)}), "
            "but must be."
        ) from None
    if not first <= close:
        raise InputError(
            f"module's gradient by autograd differs by {first:.1g} of its norm from that of a linear layer "
            "on features, but both must agree."
        )
    if not second <= close:
        # Where a deep network leaves next to nothing of the image, single precision leaves noise of it.
        with suppress(RuntimeError):  # of a module that insists on its precision
            in_double = parameters._each(lambda one: one.double() if one.is_floating_point() else one)
            _, second = _missed_by_autograd(network, module, in_double)
    if not second <= close:
        raise InputError(
            f"module's second derivative by autograd differs by {second:.1g} of its norm from that by "
            "torch.func, but both must agree: torch has layers for which they do not."
        )


def _missed_by_autograd(
    network: TorchNetwork, module: nn.Module, parameters: Parameters
) -> tuple[float, float]:
    """How far the gradient and the derivative of its square are from autograd's, relative to their norms."""
    like = parameters.tensors[0]
    images = _images(network, like)
    target = F.one_hot(torch.arange(2) % network.classes, network.classes).to(like)
    together = 2 if network.mode == "training" else 1
    images, target = (tensor.unflatten(0, (-1, together)) for tensor in (images, target))
    leaf = images.clone().requires_grad_()
    ours = network.mean_gradient(parameters, leaf, target).tensors()
    ours_back = _square_back(ours, leaf)
    theirs = [_by_autograd(module, parameters, *pair) for pair in zip(images, target, strict=True)]
    exact = [torch.stack(parts) for parts in zip(*(gradient for gradient, _ in theirs), strict=True)]
    return (
        _distance([tensor.detach() for tensor in ours], exact),
        _distance([ours_back], [torch.stack([back for _, back in theirs])]),
    )


def first_line(error: BaseException) -> str:
    """What an error says, on one line, for a message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _images(network: TorchNetwork, like: Tensor) -> Tensor:
    """Two random images, always the same."""
    stream = torch.Generator().manual_seed(0)
    return torch.rand(2, *network.image_shape, generator=stream).to(like)


def _scores_and_outputs(
    network: TorchNetwork, module: nn.Module, images: Tensor
) -> tuple[Tensor, list[tuple[Tensor, int]]]:
    """What the module gives, and what its last linear layer gave each time: numbers and their place."""
    seen: list[tuple[Tensor, int]] = []
    hook = network.output.register_forward_hook(
        lambda _, __, output: seen.append((output.clone(), output.data_ptr()))
    )
    try:
        return module(images.clone()), seen
    except Exception as error:  # whatever the module does decides what it may raise
        raise InputError(
            f"module does not take images of shape {tuple(images.shape)} ({first_line(error)}), but "
            "must take those of image_shape."
        ) from None
    finally:
        hook.remove()


def _by_autograd(
    module: nn.Module, parameters: Parameters, images: Tensor, target: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The gradient of the mean over the images, and the derivative of its square by them."""
    leaves = [tensor[0].clone().requires_grad_() for tensor in parameters.tensors]
    held = (*leaves, *(buffer[0].clone() for buffer in parameters.buffers))
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    leaf = images.clone().requires_grad_()
    # A copy again: a module may work in place, which a leaf does not allow.
    scores = functional_call(module, dict(zip(names, held, strict=True)), (leaf.clone(),))
    gradient = torch.autograd.grad(
        F.cross_entropy(scores, target), leaves, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return [tensor.detach() for tensor in gradient], _square_back(gradient, leaf)


def _square_back(gradient: Sequence[Tensor], images: Tensor) -> Tensor:
    """Derivative of a gradient's square by the images."""
    total = sum((tensor.square().sum() for tensor in gradient), start=gradient[0].new_zeros(()))
    if not total.requires_grad:
        return torch.zeros_like(images)
    (back,) = torch.autograd.grad(total, images, allow_unused=True, materialize_grads=True)
    return back


def _distance(ours: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The distance of one list of tensors to another of the same sizes, relative to the other's norm."""
    missed, size = (
        math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))
        for tensors in ([one - other.view_as(one) for one, other in zip(ours, exact, strict=True)], exact)
    )
    return missed / size if size else missed
