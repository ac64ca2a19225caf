"""The objective of DLG and iDLG with known labels, without autograd: of one attack, its graph costs the most.

To the bit it is what autograd brings, which calls the same compiled loops in the same order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wdlg.compiled import as_array
from wdlg.networks.base import Parameters
from wdlg.networks.compiled_pass import Pass
from wdlg.networks.lenet import LayerWeights, LeNet
from wdlg.updates.compiled_distance import Distance
from wdlg.updates.gradient import Gradient


def squared_distance(
    network: LeNet, parameters: Parameters, images: Tensor, targets: Tensor, shared: Gradient
) -> tuple[Tensor, Tensor]:
    """Squared distance (B,) of the gradients of images to the shared ones, and its derivative by the images.

    Args:
        network, parameters: of N = 1 or N = B networks.
        images: (B, channels, height, width).
        targets: label probabilities (B, K).
        shared: of one image each. That all this fits together is what an observation and the engine check.
    """
    done = Pass(as_array(images), as_array(targets), network, parameters.derived(LayerWeights))
    distance = Distance(done.gradients, [as_array(part) for part in shared.parts()])
    slope, _ = done.back(*distance.back(np.ones_like(distance.total)))
    return torch.from_numpy(distance.total), torch.from_numpy(slope)
