"""What is attacked in the measurements.

Random images, since speed does not depend on what an image shows; or those of the quick book.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812

from wdlg import data
from wdlg.attacks import Observation, Start
from wdlg.networks import LeNet
from wdlg.study import draw, specification
from wdlg.study.cells import AttackCell


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


@dataclass(frozen=True)
class BookProblem:
    """A cell of the quick book's study: its images, networks and dummies."""

    cell: AttackCell

    def start(self) -> Start:
        """What the attacker sees, and the dummies."""
        cases = draw(data.load(self.cell.dataset), self.cell.design)
        return Start(cases.exact(), cases.dummy_images, cases.dummy_labels)


def of_the_quick_book(method: str) -> list[BookProblem]:
    """The attacks of one method in the part of the study that most chapters show."""
    study = specification.load(Path(__file__).parents[1] / "studies" / "quick.yaml")
    return [BookProblem(cell) for cell in study.part("main") if cell.attack.name == method]
