"""What a participant may send that is not the gradient of one image in a network that can be inverted.

The closed form (:mod:`wdlg.attacks.exact`) takes for granted that it is. Here are the same private images,
sent in ways that break one assumption each, to see how an attack ends.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wdlg.attacks.base import Observation
from wdlg.data import Sample
from wdlg.networks.module import ModuleNetwork
from wdlg.sharing import defences
from wdlg.study.cases import Cases, Design, draw
from wdlg.updates.gradient import from_tensors

DEFENCES = {
    "noise 0.001": "noise,level=0.001",
    "noise 0.03": "noise,level=0.03",
    "float16": "rounding,format=float16",
    "pruned 50 %": "pruning,share=0.5",
}
"""By the name of what is sent, a defence as :func:`wdlg.sharing.defences.parse` reads it."""

SHIFT = 100.0
"""Added to each bias of the first layer, this carries every sigmoid and tanh there to its end."""


def broken(sample: Sample, design: Design) -> dict[str, Observation]:
    """What an attacker sees of the design's images, by what is sent; "as assumed" first.

    Args:
        sample: private images.
        design: of LeNets, without a defence; its images are the same in each.
    """
    cases = draw(sample, design)
    return {
        "as assumed": cases.exact(),
        **{
            name: draw(sample, replace(design, defence=defences.parse(text))).observation()
            for name, text in DEFENCES.items()
        },
        "two images": of_two(cases),
        "saturated": saturated(cases),
        "pooling": pooling(cases),
    }


def of_two(cases: Cases) -> Observation:
    """The mean gradient of each image and its neighbour in the list, shown as if it were that of one."""
    pairs = torch.stack((cases.truth, cases.truth.roll(1, 0)), dim=1)
    labels = torch.stack((cases.labels, cases.labels.roll(1)), dim=1)
    exact = cases.exact()
    target = F.one_hot(labels, cases.network.classes).to(pairs)
    mean = cases.network.mean_gradient(exact.parameters, pairs, target)
    sent = [tensor.detach() for tensor in mean.as_sent().tensors()]
    return replace(exact, gradient=from_tensors(sent, rank_one=False))


def saturated(cases: Cases) -> Observation:
    """The images in networks whose first layer answers every image alike, see ``SHIFT``."""
    weight, bias, *others = cases.parameters.tensors
    parameters = replace(cases.parameters, tensors=(weight, bias + SHIFT, *others))
    return replace(cases, parameters=parameters).exact()


def pooling(cases: Cases) -> Observation:
    """The images in one network with a layer that takes means of neighbours, drawn from seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(cases.network.image_shape[0], 12, 5, padding=2),
            nn.Sigmoid(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(12 * 4 * 4, cases.network.classes),
        )
    network = ModuleNetwork(module, cases.network.image_shape)
    return replace(cases, network=network, parameters=network.parameters()).exact()
