"""The convolutions of LeNet for B images with B sets of weights, as batched matrix products.

A patch is what one output place sees of the input. Patches are copied with channels last, so that a row of
a kernel's window is one contiguous run; that is several times faster than ``torch.nn.functional.unfold``.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        frame = self._frame(images)
        self._inside(frame).copy_(images.unflatten(2, (self.height, self.width)).permute(0, 2, 3, 1))
        image, row, column, channel = frame.stride()
        windows = frame.as_strided(
            (len(images), height, width, KERNEL, KERNEL * self.channels),
            (image, row * self.stride, column * self.stride, row, channel),
        )
        return windows.reshape(len(images), height * width, -1)

    def transposed(self, outputs: Tensor, matrix: Tensor) -> Tensor:
        """Derivative by the input, (B, in, input places).

        Args:
            outputs: derivative by the output, (B, out, places).
            matrix: weights in the order of the patches, (B, out, 25 * in), or (1, out, 25 * in) for all.
        """
        height, width = self.output_size
        patches = (outputs.transpose(1, 2) @ matrix).unflatten(1, (height, width))
        patches = patches.unflatten(3, (KERNEL, KERNEL * self.channels))
        frame = self._frame(outputs)
        image, row, column, channel = frame.stride()
        # Patches overlap, but in one row of the kernel those this far apart do not: they are added at once.
        apart = -(-KERNEL // self.stride)
        for kernel_row in range(KERNEL):
            for first in range(apart):
                part = patches[:, :, first::apart, kernel_row]
                frame.as_strided(
                    part.shape,
                    (image, row * self.stride, column * self.stride * apart, channel),
                    kernel_row * row + first * self.stride * column,
                ).add_(part)
        return self._inside(frame).permute(0, 3, 1, 2).flatten(2)

    def _frame(self, like: Tensor) -> Tensor:
        """Zeros, channels last: room for the input, 2 places before it, and as far after as windows reach."""
        height, width = ((size - 1) * self.stride + KERNEL for size in self.output_size)
        return like.new_zeros(len(like), height, width, self.channels)

    def _inside(self, frame: Tensor) -> Tensor:
        """Where the input is in a frame."""
        return frame[:, PADDING : PADDING + self.height, PADDING : PADDING + self.width]


def patch_order(weights: Tensor) -> Tensor:
    """Weights (B, out, in * 25) with their columns in the order of the patches, channels last."""
    return weights.unflatten(2, (-1, KERNEL**2)).transpose(2, 3).flatten(2)


def torch_order(weights: Tensor) -> Tensor:
    """The inverse of :func:`patch_order`."""
    return weights.unflatten(2, (KERNEL**2, -1)).transpose(2, 3).flatten(2)
