"""Stand-in until the branch h-lm is merged: the same function, from passes in forward mode alone."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.func import jvp, vmap

from wdlg.networks.base import Network, Parameters
from wdlg.networks.lenet import LeNet
from wdlg.networks.module import ModuleNetwork


def normal_matrices(network: Network, parameters: Parameters, images: Tensor, target: Tensor) -> Tensor:
    """``JᵀJ`` of the gradient by the image, (B, n, n)."""
    found = []
    for number in range(len(images)):
        place = torch.tensor([number])
        own = parameters if len(parameters) == 1 else parameters.select(place)
        net: Network = network
        if isinstance(network, LeNet):
            module = ModuleNetwork(network.as_module(own), network.image_shape)
            net, own = module, module.parameters()
        hot = target[place]

        def parts(
            flat: Tensor, net: Network = net, own: Parameters = own, hot: Tensor = hot
        ) -> tuple[Tensor, ...]:
            gradient = net.gradient(own, flat.view(1, *network.image_shape), hot)
            return tuple(gradient.parts())

        flat = images[number].flatten()
        *_, error, features = parts(flat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = vmap(lambda v, parts=parts, flat=flat: jvp(parts, (flat,), (v,))[1], chunk_size=64)(
                torch.eye(len(flat), dtype=flat.dtype)
            )
        *hidden, e, f = (row.flatten(1) for row in rows)
        crossed = torch.outer(e @ error[0], f @ features[0])
        total = (features.square().sum() + 1) * (e @ e.T) + error.square().sum() * (f @ f.T)
        total = total + crossed + crossed.T
        for row in hidden:
            total = total + row @ row.T
        found.append(total.detach())
    return torch.stack(found)
