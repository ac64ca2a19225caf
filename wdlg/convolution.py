"""The convolutions of LeNet for B images with B sets of weights, as batched matrix products.

A patch is what one output place sees of the input. Patches are copied with channels last, so that a row of
a kernel's window is one contiguous run; that is several times faster than ``torch.nn.functional.unfold``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

KERNEL = 5
PADDING = 2


@dataclass(frozen=True)
class Convolution:
    """A 5x5 convolution with padding 2 and stride 1 or 2; what it computes, not its weights.

    Weights are (B, out, in * 25) in torch's order (input channel, kernel row, kernel column); images and
    activations are (B, channels, places), places row by row.

    Args:
        channels, height, width: of the input.
        stride: 1 or 2.
    """

    channels: int
    height: int
    width: int
    stride: int

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    def patches(self, images: Tensor) -> Tensor:
        """(B, in, places) to (B, output places, 25 * in), with the channels of a patch last."""
        height, width = self.output_size
        # A frame of zeros: 2 places before the image, and after it as far as the last window reaches.
        frame = images.new_zeros(
            len(images),
            (height - 1) * self.stride + KERNEL,
            (width - 1) * self.stride + KERNEL,
            self.channels,
        )
        inside = frame[:, PADDING : PADDING + self.height, PADDING : PADDING + self.width]
        inside.copy_(images.unflatten(2, (self.height, self.width)).permute(0, 2, 3, 1))
        image, row, column, channel = frame.stride()
        windows = frame.as_strided(
            (len(images), height, width, KERNEL, KERNEL * self.channels),
            (image, row * self.stride, column * self.stride, row, channel),
        )
        return windows.reshape(len(images), height * width, -1)

    def transposed(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Derivative by the input, (B, in, input places).

        Args:
            outputs: derivative by the output, (B, out, places).
            weights: (B, out, in * 25), or (1, out, in * 25) for all.
        """
        patches = weights.transpose(1, 2) @ outputs
        size = (self.height, self.width)
        return F.fold(patches, size, KERNEL, padding=PADDING, stride=self.stride).flatten(2)


def patch_order(weights: Tensor) -> Tensor:
    """Weights (B, out, in * 25) with their columns in the order of the patches, channels last."""
    return weights.unflatten(2, (-1, KERNEL**2)).transpose(2, 3).flatten(2)


def torch_order(weights: Tensor) -> Tensor:
    """The inverse of :func:`patch_order`."""
    return weights.unflatten(2, (KERNEL**2, -1)).transpose(2, 3).flatten(2)
