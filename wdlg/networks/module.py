"""Any torch module under attack: gradients by ``torch.func`` instead of by hand.

Slower than :class:`~wdlg.networks.lenet.LeNet`, whose passes are written out, and equal to it where both
apply.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from wdlg.errors import InputError, told
from wdlg.networks.base import Parameters, require_fitting, require_image_shape
from wdlg.shapes import describe
from wdlg.updates.gradient import Gradient, rows_of

CLOSE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""How far the gradient may be from that of autograd, relative to its norm. Rounding is a tenth of it; what
this is to find, such as another scale of the class scores, is of the size of the gradient itself."""


@dataclass(frozen=True)
class ModuleNetwork:
    """A classifier given as a ``torch.nn.Module``, to be used wherever a LeNet is.

    The module must end in a ``torch.nn.Linear`` with bias that gives the class scores, registered last: the
    label rules read that layer's gradient. Attacked is a copy in evaluation mode (no dropout, running means
    of batch normalisation), so the module stays as it is, and what happens to it later is not seen. When this
    is built, its gradient for two random images is compared with that of autograd. To attack a network with
    L-BFGS its activations should be smooth, as sigmoid is and ReLU is not.

    Args:
        module: maps images (B, channels, height, width) to class scores (B, K).
        image_shape: (channels, height, width).

    Raises:
        InputError: the module does not take such images, does not end in one linear layer with bias that is
            used once, shares weights between layers, holds anything but float32 or float64, draws random
            numbers, or cannot be differentiated by ``torch.func``.

    >>> module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
    >>> network = ModuleNetwork(module, (1, 8, 8))
    >>> target = torch.eye(10)[[3]]
    >>> gradient = network.gradient(network.parameters(), torch.rand(1, 1, 8, 8), target)
    >>> [tuple(tensor.shape) for tensor in gradient.tensors()]
    [(1, 12, 64), (1, 12, 1), (1, 10, 12), (1, 10, 1)]
    """

    module: nn.Module
    image_shape: tuple[int, int, int]
    _attacked: nn.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise InputError(f"module is {told(self.module)}, but must be a torch.nn.Module.")
        object.__setattr__(self, "image_shape", require_image_shape(self.image_shape))
        _require_readable_weights(self.module)
        try:
            attacked = copy.deepcopy(self.module).eval().requires_grad_(False)
        except Exception as error:  # whatever the module holds decides what a copy may raise
            raise InputError(f"module cannot be copied ({_first_line(error)}), but must be.") from None
        object.__setattr__(self, "_attacked", attacked)
        _require_linear_output(attacked)
        self._require_that_of_autograd()

    @property
    def output(self) -> nn.Linear:
        """The layer that gives the class scores, of the copy."""
        return _last_linear(self._attacked)[0]

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.output.out_features

    @property
    def features(self) -> int:
        """Width M of the last hidden layer."""
        return self.output.in_features

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the module's parameters, in their order."""
        return tuple(tuple(tensor.shape) for tensor in self._attacked.parameters())

    def parameters(self) -> Parameters:
        """The module's own weights, one network (N = 1) that all attacks share."""
        return Parameters(tuple(tensor.detach()[None] for tensor in self._attacked.parameters()))

    def gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the cross-entropy with respect to every parameter, image by image.

        Differentiable in ``images`` and ``target``. Arguments, result and errors as in
        :meth:`wdlg.networks.lenet.LeNet.gradient`.
        """
        require_fitting(self, parameters, images, target)
        names = [name for name, _ in self._attacked.named_parameters()]
        output = self.output

        def loss(
            hidden: tuple[Tensor, ...], last: tuple[Tensor, ...], image: Tensor, label: Tensor
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            seen: list[Tensor] = []
            hook = output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                weights = dict(zip(names, (*hidden, *last), strict=True))
                logits = functional_call(self._attacked, weights, (image[None],))
            finally:
                hook.remove()
            # The cross-entropy for a label whose probabilities sum to one.
            value = torch.logsumexp(logits[0], dim=-1) - (label * logits[0]).sum()
            return value, (logits[0], seen[0][0])

        own = 0 if len(parameters) > 1 or len(images) == 1 else None
        tensors = parameters.tensors if own == 0 else tuple(tensor[0] for tensor in parameters.tensors)
        hidden, (logits, features) = vmap(grad(loss, has_aux=True), in_dims=(own, own, 0, 0))(
            tensors[:-2], tensors[-2:], images, target
        )
        rows = tuple(tensor.reshape(len(images), *rows_of(tensor.shape[1:])) for tensor in hidden)
        return Gradient.of_one(rows, torch.softmax(logits, dim=-1) - target, features.flatten(1))

    def _require_that_of_autograd(self) -> None:
        """Refuse a module whose gradient, as computed here, is not that of autograd."""
        weights = self.parameters().tensors
        like = weights[0]
        stream = torch.Generator().manual_seed(0)
        images = torch.rand(2, *self.image_shape, generator=stream).to(like)
        scores, seen = self._scores_and_outputs(images)
        again, _ = self._scores_and_outputs(images)
        if not isinstance(scores, Tensor) or scores.shape != (2, self.classes):
            raise InputError(
                f"module gives {describe(scores)} for 2 images, but must give class scores "
                f"(2, {self.classes}), as many as the linear layer that is registered last."
            )
        if scores.requires_grad:
            raise InputError("module computes with weights of another module, but must hold what it uses.")
        if not torch.equal(scores, again):
            raise InputError(
                "module gives other class scores for the same images a second time, but must draw no random "
                "numbers in evaluation mode (functional dropout needs training=self.training)."
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
        target = F.one_hot(torch.arange(2) % self.classes, self.classes).to(like)
        try:
            ours = self.gradient(self.parameters(), images, target).tensors()
            theirs = [
                _by_autograd(self._attacked, weights, *pair) for pair in zip(images, target, strict=True)
            ]
        except RuntimeError as error:
            raise InputError(
                f"module cannot be differentiated by torch.func, image by image ({_first_line(error)}), but "
                "must be."
            ) from None
        missed = size = 0.0
        for mine, parts in zip(ours, zip(*theirs, strict=True), strict=True):
            exact = torch.stack(parts).view_as(mine)
            missed += float((mine - exact).double().square().sum())
            size += float(exact.double().square().sum())
        if not math.sqrt(missed) <= CLOSE[like.dtype] * math.sqrt(size):
            raise InputError(
                f"module's gradient by autograd differs by {math.sqrt(missed / (size or 1)):.1g} of its norm "
                "from that of a linear layer on features, but both must agree."
            )

    def _scores_and_outputs(self, images: Tensor) -> tuple[Tensor, list[tuple[Tensor, int]]]:
        """What the module gives, and what its last linear layer gave each time: numbers and their place."""
        seen: list[tuple[Tensor, int]] = []
        hook = self.output.register_forward_hook(
            lambda _, __, output: seen.append((output.clone(), output.data_ptr()))
        )
        try:
            return self._attacked(images.clone()), seen
        except Exception as error:  # whatever the module does decides what it may raise
            raise InputError(
                f"module does not take images of shape {tuple(images.shape)} ({_first_line(error)}), but "
                "must take those of image_shape."
            ) from None
        finally:
            hook.remove()


def _require_readable_weights(module: nn.Module) -> None:
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


def _require_linear_output(module: nn.Module) -> None:
    """Refuse a module whose last parameters are not those of a linear layer with bias."""
    names = [name for name, _ in module.named_parameters()]
    found = _last_linear(module)
    if not found or found[0].bias is None or module.get_parameter(names[-1]) is not found[0].bias:
        raise InputError(
            f"module is a {type(module).__name__} whose last parameter is "
            f"{names[-1] if names else 'missing'}, but must end in a torch.nn.Linear with bias, "
            "registered last."
        )


def _last_linear(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]


def _by_autograd(
    module: nn.Module, weights: tuple[Tensor, ...], image: Tensor, target: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of one image."""
    leaves = [tensor[0].clone().requires_grad_() for tensor in weights]
    names = [name for name, _ in module.named_parameters()]
    scores = functional_call(module, dict(zip(names, leaves, strict=True)), (image[None].clone(),))
    return torch.autograd.grad(
        F.cross_entropy(scores, target[None]), leaves, allow_unused=True, materialize_grads=True
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
