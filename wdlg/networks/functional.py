"""Networks that are torch modules: scores and gradients by ``torch.func``, with weights held apart."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, vmap

from wdlg.errors import require_choice, require_count
from wdlg.networks.base import (
    Parameters,
    gradient_of_mean,
    require_fitting,
    require_fitting_batches,
    require_held,
    require_parameters,
)
from wdlg.networks.initial import BOUND, Around, draw, initial_buffers, of_torch, require_distribution
from wdlg.networks.normalisation import PlainNormalisations
from wdlg.updates.gradient import Gradient, rows_of

MODES = ("evaluation", "training")
"""What batch normalisation uses: its running statistics, or those of the images that come together."""

_one_at_a_time = threading.RLock()
"""While a module is called, it holds the weights that it is called with, and another thread has to wait."""


class TorchNetwork:
    """A network whose scores a torch module computes; base of the classes that say which.

    Such a class is a frozen dataclass with the fields ``image_shape`` and ``classes``, and overrides
    :meth:`make_module`. With the field ``activation`` it can be registered in ``wdlg.networks.NETWORKS``; its
    other fields are the settings that studies give. The module must end in a ``torch.nn.Linear`` with bias.

    In the mode "training" the images of a participant see each other through the statistics of batch
    normalisation: its loss is one of a batch, the gradient of one image is that of a batch of one, and no
    running statistics are kept.
    """

    constants: ClassVar[Mapping[str, Any]] = {}
    """What decides its form and is no setting: for records."""

    initial: ClassVar[str] = "torch"
    """The distribution of initial weights, unless a study names another."""

    if TYPE_CHECKING:  # fields or properties of the classes that say which

        @property
        def image_shape(self) -> tuple[int, int, int]: ...

        @property
        def classes(self) -> int: ...

        @property
        def mode(self) -> str: ...

    else:
        mode = "evaluation"

    def make_module(self) -> nn.Module:
        """A new module with the architecture.

        Its own weights are not used: under ``with torch.device("meta")`` none are made, and no random numbers
        drawn.
        """
        raise NotImplementedError

    @cached_property
    def _attacked(self) -> nn.Module:
        """The module in its mode, which no one else holds."""
        require_choice("mode", self.mode, MODES)
        module = self.make_module().train(self.mode == "training").requires_grad_(False)
        return replace_all_batch_norm_modules_(module) if self.mode == "training" else module

    @cached_property
    def _names(self) -> list[str]:
        """Of parameters, then of buffers."""
        both = (*self._attacked.named_parameters(), *self._attacked.named_buffers())
        return [name for name, _ in both]

    @cached_property
    def output(self) -> nn.Linear:
        """The layer that gives the class scores."""
        return [layer for layer in self._attacked.modules() if isinstance(layer, nn.Linear)][-1]

    @property
    def features(self) -> int:
        """Width M of the last hidden layer."""
        return self.output.in_features

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Of the module's parameters, in their order, with a space before the last part."""
        named = [name for name, _ in self._attacked.named_parameters()]
        return tuple(" ".join(name.rsplit(".", 1)) for name in named)

    @cached_property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the module's parameters, in their order."""
        return tuple(tuple(tensor.shape) for tensor in self._attacked.parameters())

    @cached_property
    def buffer_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the module's buffers, in their order; in training mode without running statistics."""
        return tuple(tuple(tensor.shape) for tensor in self._attacked.buffers())

    def initial_parameters(
        self,
        count: int = 1,
        *,
        generator: torch.Generator,
        distribution: str = "torch",
        bound: float = BOUND,
        dtype: torch.dtype = torch.float32,
    ) -> Parameters:
        """Untrained networks; running statistics have mean 0 and variance 1.

        Args:
            count: how many networks, N.
            generator: source of randomness.
            distribution: "torch", what the layers of ``torch.nn`` start with, for linear and convolution
                layers U(-1/sqrt(n), 1/sqrt(n)) with the n inputs of a unit, for normalisations scale 1 and
                shift 0; or "uniform", every parameter U(-bound, bound), as the code of DLG draws them.
            bound: half width of the uniform distribution; of no account for "torch".
            dtype: floating type of the parameters.

        Raises:
            InputError: a count, a distribution, a bound or a type is unknown or out of range; or the module
                has layers whose own distribution is not known here.
        """
        require_distribution(distribution, bound)
        around = (
            of_torch(self._attacked)
            if distribution == "torch"
            else [Around(0, bound)] * len(self.parameter_shapes)
        )
        tensors = draw(self.parameter_shapes, around, count, generator=generator, dtype=dtype)
        return Parameters(tensors, initial_buffers(self._attacked, count, dtype))

    def as_module(self, parameters: Parameters, number: int = 0) -> nn.Module:
        """One of the networks as a torch module of its own, in this network's mode.

        Args:
            parameters: N networks.
            number: which of them, from 0.

        Raises:
            InputError: the parameters are not of this network, or there is none of that number.
        """
        require_parameters(self, parameters)
        require_count("number", number, at_least=0, below=len(parameters))
        module = copy.deepcopy(self._attacked).to_empty(device=parameters.tensors[0].device)
        module.to(parameters.tensors[0].dtype).requires_grad_(True)
        held = (*module.parameters(), *module.buffers())
        with torch.no_grad():
            for theirs, ours in zip(held, (*parameters.tensors, *parameters.buffers), strict=True):
                theirs.copy_(ours[number])
        return module

    def scores(self, weights: Sequence[Tensor], images: Tensor, buffers: Sequence[Tensor] = ()) -> Tensor:
        """Class scores (N, K) of images (N, channels, height, width) in one network, for ``torch.func``.

        In training mode of the N images together.

        Args:
            weights: of ``parameter_shapes``, without the axis of networks.
            images: the images.
            buffers: of ``buffer_shapes``, without that axis.

        Raises:
            InputError: another number of weights or buffers than the network has.
        """
        return self._scores_and_features(weights, buffers, images)[0]

    def gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the cross-entropy with respect to every parameter, image by image.

        Differentiable in ``images`` and ``target``. Arguments, result and errors as in
        :meth:`wdlg.networks.lenet.LeNet.gradient`.
        """
        require_fitting(self, parameters, images, target)
        return self._gradient(parameters, images[:, None], target[:, None])

    def mean_gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """Gradient of the mean cross-entropy over the N images of each of B participants.

        Arguments, result and errors as in :meth:`wdlg.networks.lenet.LeNet.mean_gradient`.
        """
        require_fitting_batches(self, parameters, images, target)
        return self._gradient(parameters, images, target)

    def _gradient(self, parameters: Parameters, images: Tensor, target: Tensor) -> Gradient:
        """The mean gradient of images (B, N, C, H, W), each row of N seen together."""

        def loss(
            hidden: tuple[Tensor, ...], last: tuple[Tensor, ...], buffers: tuple[Tensor, ...],
            images: Tensor, target: Tensor,
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
            logits, features = self._scores_and_features((*hidden, *last), buffers, images)
            # The cross-entropy for labels whose probabilities sum to one.
            values = torch.logsumexp(logits, dim=-1) - (target * logits).sum(-1)
            return values.mean(), (logits, features)

        own = 0 if len(parameters) > 1 or len(images) == 1 else None
        weights, buffers = (
            some if own == 0 else tuple(tensor[0] for tensor in some)
            for some in (parameters.tensors, parameters.buffers)
        )
        of_each = vmap(grad(loss, has_aux=True), in_dims=(own, own, own if buffers else None, 0, 0))
        hidden, (logits, features) = of_each(weights[:-2], weights[-2:], buffers, images, target)
        rows = tuple(tensor.reshape(len(images), *rows_of(tensor.shape[1:])) for tensor in hidden)
        return gradient_of_mean(rows, torch.softmax(logits, dim=-1) - target, features.flatten(2))

    def _scores_and_features(
        self, weights: Sequence[Tensor], buffers: Sequence[Tensor], images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the output layer gives, (N, K), and what comes to it, (N, M)."""
        require_held(self, weights, buffers)
        held = dict(zip(self._names, (*weights, *buffers), strict=True))
        seen: list[Tensor] = []
        with _one_at_a_time, PlainNormalisations():
            hook = self.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                return functional_call(self._attacked, held, (images,)), seen[0]
            finally:
                hook.remove()
