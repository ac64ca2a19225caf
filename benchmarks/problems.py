"""What is attacked in the measurements: random images, since speed does not depend on what an image shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from wdlg.attack import Observation
from wdlg.engine import Start
from wdlg.networks import LeNet


@dataclass(frozen=True)
class Problem:
    """Attacks on untrained LeNets, the same for the same settings.

    Args:
        attacks: how many.
        side, channels: of the images.
        classes: of the networks.
        shared: one network for all attacks, or one for each.
        seed: decides images, networks and dummies.
    """

    attacks: int
    side: int = 32
    channels: int = 3
    classes: int = 100
    shared: bool = False
    seed: int = 0

    def start(self) -> Start:
        """What the attacker sees, and the dummies."""
        stream = torch.Generator().manual_seed(self.seed)
        network = LeNet((self.channels, self.side, self.side), self.classes)
        parameters = network.initial_parameters(1 if self.shared else self.attacks, generator=stream)
        images = torch.rand(self.attacks, *network.image_shape, generator=stream)
        label = torch.randint(self.classes, (self.attacks,), generator=stream)
        target = F.one_hot(label, self.classes).float()
        return Start(
            Observation(network, parameters, network.gradient(parameters, images, target)),
            torch.randn(images.shape, generator=stream),
            torch.randn(self.attacks, self.classes, generator=stream),
        )
