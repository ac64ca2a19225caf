"""A random layer walked around: what comes before it is as exact as ever, and so is its gradient.

The gradient of a linear layer for one image is ``delta aᵀ`` for the weight and ``delta`` for the bias. Both
are sent. So the layer's input a is a quotient of them, whatever randomness comes after it, and the derivative
delta by the layer's sums, which is all that the layers below need to know of those above, need not be
computed: it is in the message.

Scheliga, Mäder and Seeland (2022), the authors of PRECODE, and Balunović et al. (2022) attacked it by
searches that leave its gradients out or search for its noise as well. Here nothing is searched for.
"""

from __future__ import annotations

from wdlg.attacks.base import Observation
from wdlg.errors import InputError, told
from wdlg.networks.base import Parameters
from wdlg.networks.bottleneck import Bottleneck
from wdlg.updates.gradient import from_tensors


def below_noise(observation: Observation) -> Observation:
    """What is seen of the layers before the noise: an observation of a LeNet that ends in the encoder.

    Its "label" means nothing, since the bias's gradient is no longer that of class scores. The closed form
    (:func:`wdlg.attacks.exact.invert`) undoes it as any other, and needs no label.

    Args:
        observation: of a :class:`~wdlg.networks.bottleneck.Bottleneck`, one image each.

    Raises:
        InputError: it is of another network.
    """
    network = observation.network
    if not isinstance(network, Bottleneck):
        raise InputError(f"observation is of {told(network)}, but must be of a Bottleneck.")
    lower = network.below
    count = len(lower.parameter_shapes)
    weights = tuple(
        tensor.reshape(len(tensor), *shape)
        for tensor, shape in zip(observation.parameters.tensors[:count], lower.parameter_shapes, strict=True)
    )
    tensors = observation.gradient.tensors()[:count]
    return Observation(lower, Parameters(weights), from_tensors(tensors, rank_one=False))
