"""Any torch module under attack: gradients by ``torch.func`` instead of by hand.

Slower than :class:`~wdlg.networks.lenet.LeNet`, whose passes are written out, and equal to it where both
apply.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn

from wdlg.errors import InputError, require_choice, told
from wdlg.networks import module_checks
from wdlg.networks.base import Parameters, require_image_shape
from wdlg.networks.functional import MODES, TorchNetwork


@dataclass(frozen=True)
class ModuleNetwork(TorchNetwork):
    """A classifier given as a ``torch.nn.Module``, to be used wherever a LeNet is.

    The module must end in a ``torch.nn.Linear`` with bias that gives the class scores, registered last: the
    label rules read that layer's gradient. Attacked is a copy, so the module stays as it is, and what happens
    to it later is not seen. When this is built, its gradient for two random images is compared with that of
    autograd. To attack a network with L-BFGS its activations should be smooth, as sigmoid is and ReLU is not.

    Args:
        module: maps images (B, channels, height, width) to class scores (B, K).
        image_shape: (channels, height, width).
        mode: "evaluation", as after ``module.eval()``: no dropout, running statistics in batch
            normalisation; or "training", as after ``module.train()``: statistics of the images that a
            participant takes the mean gradient of. Dropout, which no attacker could repeat, is refused there.

    Raises:
        InputError: the module does not take such images, does not end in one linear layer with bias that is
            used once, shares weights between layers, holds anything but float32 or float64, draws random
            numbers, changes what it holds, or cannot be differentiated by ``torch.func``; or the mode is
            unknown.

    >>> import torch
    >>> module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
    >>> network = ModuleNetwork(module, (1, 8, 8))
    >>> target = torch.eye(10)[[3]]
    >>> gradient = network.gradient(network.parameters(), torch.rand(1, 1, 8, 8), target)
    >>> [tuple(tensor.shape) for tensor in gradient.tensors()]
    [(1, 12, 64), (1, 12, 1), (1, 10, 12), (1, 10, 1)]
    """

    module: nn.Module
    image_shape: tuple[int, int, int]
    mode: str = "evaluation"

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise InputError(f"module is {told(self.module)}, but must be a torch.nn.Module.")
        object.__setattr__(self, "image_shape", require_image_shape(self.image_shape))
        require_choice("mode", self.mode, MODES)
        module_checks.require_readable_weights(self.module)
        module_checks.require_linear_output(self._attacked)
        module_checks.require_plain_scores(self, self._attacked)
        module_checks.require_gradient_of_autograd(self, self._attacked, self.parameters())

    def make_module(self) -> nn.Module:
        """A copy of the module."""
        try:
            return copy.deepcopy(self.module)
        except Exception as error:  # whatever the module holds decides what a copy may raise
            raise InputError(
                f"module cannot be copied ({module_checks.first_line(error)}), but must be."
            ) from None

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.output.out_features

    def parameters(self) -> Parameters:
        """The module's own weights and buffers, one network (N = 1) that all attacks share."""
        return Parameters(
            tuple(tensor.detach()[None] for tensor in self._attacked.parameters()),
            tuple(buffer.detach()[None] for buffer in self._attacked.buffers()),
        )
