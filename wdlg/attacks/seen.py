"""Whether a gradient can be what a participant sent at the parameters that the attacker holds."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.errors import InputError
from wdlg.networks.base import Network, Parameters
from wdlg.shapes import require_alike
from wdlg.updates.gradient import Gradient, rows_of
from wdlg.updates.output_layer import Product, Products


def require_possible(network: Network, parameters: Parameters, gradient: Gradient, *, of_one: bool) -> None:
    """Raise :class:`InputError` unless the gradients are of this network's parameters, one for each attack.

    Args:
        network: the architecture.
        parameters: N networks.
        gradient: B gradients.
        of_one: whether each is that of one image, so that its output layer must agree with the weights.
    """
    count, classes, features = len(gradient), network.classes, network.features
    wanted = [(count, *rows_of(shape)) for shape in network.parameter_shapes[:-2]]
    if len(gradient.hidden) != len(wanted):
        raise InputError(
            f"gradient holds {len(gradient.hidden)} hidden parameters, but the network has {len(wanted)}."
        )
    came = [tuple(part.shape) for part in gradient.hidden] + [gradient.output.shape]
    for shape, needed in zip(came, [*wanted, (count, classes, features)], strict=True):
        if shape != needed:
            raise InputError(f"gradient has a part of shape {shape}, but the network needs {needed} there.")
    for part in gradient.parts():
        require_alike("gradient", part, "parameters", parameters.tensors[0])
    if len(parameters) not in (1, count):
        raise InputError(
            f"parameters holds {len(parameters)} networks, but must hold 1 or one for each of the {count} "
            "gradients."
        )
    gradient.require_finite()
    if isinstance(gradient.output, Products):
        raise InputError(
            "gradient holds the factors of several images, but only their sum is sent: take "
            "gradient.as_sent()."
        )
    if isinstance(gradient.output, Product) and of_one:
        _require_same_weights(parameters, gradient.output)


def _require_same_weights(parameters: Parameters, output: Product) -> None:
    """Refuse gradients that the output layer contradicts.

    The features give the class probabilities p, and the bias's gradient is p less the target: what it says of
    the target is no mixture of labels where the gradient is scaled up or turned around, or comes from other
    weights. A gradient that is scaled down is ``scale (p - label)``.
    """
    error = output.error
    probabilities = torch.softmax(parameters.output_layer.logits(output.features), dim=-1)
    exact = probabilities - F.one_hot(error.argmin(1), error.shape[1]).to(error.dtype)
    fits = (error - exact).norm(dim=1) <= 1e-2 * exact.norm(dim=1) + 1e-5
    odd = ~fits & (error != 0).any(1)  # a saturated softmax leaves no features either
    if not odd.any():
        return
    error, probabilities = error[odd], probabilities[odd]
    for extreme in (error.argmin(1), error.argmax(1)):
        exact = probabilities - F.one_hot(extreme, error.shape[1]).to(error.dtype)
        scale = (error * exact).sum(1) / exact.square().sum(1).clamp_min(torch.finfo(error.dtype).tiny)
        scaled = (error - scale[:, None] * exact).norm(dim=1) <= 1e-3 * error.norm(dim=1)
        if scaled.any():
            raise InputError(
                f"gradient is {float(scale[scaled][0]):.3g} times that of one image with one label, but must "
                "be that itself: divide it by that number (a learning rate, an average, a smoothed label)."
            )
    if ((probabilities - error).amin(1) < -1e-2).any():
        raise InputError(
            "gradient is not one at these parameters: its output layer's features give other class "
            "probabilities than its bias."
        )
