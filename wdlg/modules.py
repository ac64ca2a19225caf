"""Any torch module under attack: gradients by ``torch.func`` instead of by hand.

Slower than :class:`~wdlg.networks.LeNet`, whose passes are written out, and equal to it where both apply.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from wdlg.errors import InputError
from wdlg.gradients import Gradient
from wdlg.networks import Parameters, require_fitting


@dataclass(frozen=True)
class ModuleNetwork:
    """A classifier given as a ``torch.nn.Module``, to be used wherever a LeNet is.

    The module must end in a ``torch.nn.Linear`` with bias that gives the class scores, registered last: the
    label rules read that layer's gradient. It is put in evaluation mode (no dropout, running means of batch
    normalisation). To attack it with L-BFGS its activations should be smooth, as sigmoid is and ReLU is not.

    Args:
        module: maps images (B, channels, height, width) to class scores (B, K). Its weights are not changed,
            and must not be changed by others while it is attacked.
        image_shape: (channels, height, width).

    Raises:
        InputError: the module does not end in a linear layer with bias.

    >>> module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
    >>> network = ModuleNetwork(module, (1, 8, 8))
    >>> target = torch.eye(10)[[3]]
    >>> gradient = network.gradient(network.parameters(), torch.rand(1, 1, 8, 8), target)
    >>> [tuple(tensor.shape) for tensor in gradient.tensors()]
    [(1, 12, 64), (1, 12, 1), (1, 10, 12), (1, 10, 1)]
    """

    module: nn.Module
    image_shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.module.named_parameters()]
        last = [layer for layer in self.module.modules() if isinstance(layer, nn.Linear)][-1:]
        ends_linear = last and len(names) >= 2 and last[0].bias is not None
        if not ends_linear or self.module.get_parameter(names[-1]) is not last[0].bias:
            raise InputError(
                f"module is a {type(self.module).__name__} whose last parameter is "
                f"{names[-1] if names else 'missing'}, but must end in a torch.nn.Linear with bias."
            )
        self.module.eval()

    @property
    def output(self) -> nn.Linear:
        """The layer that gives the class scores."""
        return [layer for layer in self.module.modules() if isinstance(layer, nn.Linear)][-1]

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.output.out_features

    @property
    def features(self) -> int:
        """Width M of the last hidden layer."""
        return self.output.in_features

    def parameters(self) -> Parameters:
        """The module's own weights, one network (N = 1) that all attacks share."""
        return Parameters(tuple(tensor.detach()[None] for tensor in self.module.parameters()))

    def gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the cross-entropy with respect to every parameter, image by image.

        Differentiable in ``images`` and ``target``. Arguments, result and errors as in
        :meth:`wdlg.networks.LeNet.gradient`.
        """
        require_fitting(self.image_shape, self.classes, parameters, images, target)
        names = [name for name, _ in self.module.named_parameters()]

        def loss(
            hidden: tuple[Tensor, ...], output: tuple[Tensor, ...], image: Tensor, label: Tensor
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            seen: list[Tensor] = []
            hook = self.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                weights = dict(zip(names, (*hidden, *output), strict=True))
                logits = functional_call(self.module, weights, (image[None],))
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
        rows = tuple(
            tensor.reshape(len(images), tensor.shape[1], math.prod(tensor.shape[2:])) for tensor in hidden
        )
        return Gradient(rows, torch.softmax(logits, dim=-1) - target, features.flatten(1))
