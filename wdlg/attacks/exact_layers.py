"""When a convolution gives its input away, and the equations by which it does.

Of one layer the attacker knows the weights W and biases b, the sums z that it hands to its activation, the
derivative delta of the loss by these sums, and the gradient G of the weights. Two sets of linear equations
hold for its input x, with pixels counted from 0, a kernel of k taps, stride s and padding p along an axis::

    forward    sum_ci  W[o,c,i] x[c, s P + i - p] = z[o,P] - b[o]    one for each filter o and place P
    gradient   sum_P  delta[o,P] x[c, s P + i - p] = G[o,c,i]        one for each o, c and tap i

(places and taps are pairs, one number for each axis). The pixel at ``s P + i - p`` has the stride phase
``(i - p) mod s``, whatever the place P. That decides how far the gradient equations reach.

Theorem. Let phase phi of one channel have n pixels and be met by t taps, let there be O filters, C channels
and Q output places whose windows see a pixel.

1. The gradient equations fall into separate systems, one for each channel and phase, of O t equations for n
   pixels. All channels have the same matrix. So they leave at least ``missing = C sum_phi max(0, n - O t)``
   directions of the input open.
2. Of the forward equations O min(O, Q) follow from the gradient equations, for almost every delta; and a
   place whose window has k pixels brings no more than C k of its O. So no more than ``forward_equations``,
   the lesser of ``O (Q - min(O, Q))`` and ``sum_P min(O, C k_P)``, say anything of what is open.
3. The input is determined only if every pixel is seen by a window and ``forward_equations >= missing``.
4. If O windows of the t taps, each at some output place, cover the n pixels of a phase, then its gradient
   equations determine it for almost every delta.
5. If the equations determine the input for one choice of weights and delta, they do so for almost every one.

Proof. (1) The equation of (o, c, i) has pixels of channel c alone, and of the phase of i alone; in it stands
delta, and no c. A system of O t equations has at most that rank. (2) Multiply the forward equation of (o, P)
by delta[q,P] and add up over the places: the left side is ``sum_ci W[o,c,i] G[q,c,i]``, known from the
gradient equations. That is one relation for each o and q, and as many are independent as delta has
independent filters, min(O, Q) for almost every delta. The equations of one place depend on C k numbers, and
have no larger rank. (3) A pixel outside all windows is in no equation. What the gradient equations leave
open, a space of at least ``missing`` dimensions, must be told apart by the rest. (4) Let delta of filter o be
1 at the place of window o and 0 elsewhere: its equations then are the pixels of that window themselves, so
each pixel of the phase is among the equations, and the columns are independent; go on as in (5). (5)
Independent columns mean that some minor is not 0. It is a polynomial of the weights and delta, and a
polynomial that is not 0 somewhere is 0 on a set of measure zero only.

In a network delta is no free choice, but an analytic function of all weights, so (5) holds for its weights,
too, once one draw of them shows full rank. The counts are necessary, not sufficient: a small layer may pass
them and still leave something open (tests/attacks/test_exact_layers.py has some), which a draw of weights
then shows.

Zhu and Blaschko (2021, R-GAP) count over the whole layer, all phases together. So taken, the second
convolution of LeNet on 32x32 images has 300 gradient equations for the 256 pixels of a channel, and seems
determined by them alone; in its odd phase there are 48 for 64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.errors import require_count

Pair = tuple[int, int]


@dataclass(frozen=True)
class Phase:
    """The pixels of one channel that one stride phase has.

    Attributes:
        pixels: their places in the channel, row by row, (n,).
        where: the same as slices of rows and columns.
        taps: taps of the kernel that meet them, (t,).
        places: the output place at which a tap meets a pixel, (t, n); Q, the number of places, for none.
    """

    pixels: Tensor
    where: tuple[slice, ...]
    taps: Tensor
    places: Tensor


@dataclass(frozen=True)
class Layer:
    """A convolution as its geometry, one group without dilation; see the theorem above.

    Args:
        channels, height, width: of the input.
        filters: O.
        kernel, stride, padding: (rows, columns) each; padding is with zeros.

    Raises:
        InputError: a size is out of range.

    >>> conv2 = Layer(12, 16, 16, filters=12, kernel=(5, 5), stride=(2, 2), padding=(2, 2))
    >>> conv2.counts()
    [(108, 64), (72, 64), (72, 64), (48, 64)]
    >>> conv2.missing, conv2.forward_equations, conv2.may_be_determined
    (192, 624, True)
    """

    channels: int
    height: int
    width: int
    filters: int
    kernel: Pair
    stride: Pair
    padding: Pair

    def __post_init__(self) -> None:
        for name in ("channels", "height", "width", "filters"):
            require_count(name, getattr(self, name))
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0)):
            for size in getattr(self, name):
                require_count(name, size, at_least=least)
        for name, size in zip(("height", "width"), self.output_size, strict=True):
            require_count(f"output {name}", size)

    @property
    def output_size(self) -> Pair:
        """Height and width of the output."""
        rows, columns = (
            (size + 2 * p - k) // s + 1
            for size, k, s, p in zip(
                (self.height, self.width), self.kernel, self.stride, self.padding, strict=True
            )
        )
        return rows, columns

    @property
    def pixels(self) -> int:
        """Of one channel."""
        return self.height * self.width

    @property
    def places(self) -> int:
        """Q, of the output."""
        return math.prod(self.output_size)

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """All stride phases that have pixels."""
        rows, columns = (
            _met(size, k, s, p, out)
            for size, k, s, p, out in zip(
                (self.height, self.width),
                self.kernel,
                self.stride,
                self.padding,
                self.output_size,
                strict=True,
            )
        )
        return tuple(self._phase(row, column) for row in rows for column in columns)

    def _phase(self, row: Phase, column: Phase) -> Phase:
        """Of both axes together."""
        (down, across), none = self.output_size, self.places
        first, second = row.places[:, None, :, None], column.places[None, :, None, :]
        both = (first * across + second).masked_fill((first == down) | (second == across), none)
        return Phase(
            (row.pixels[:, None] * self.width + column.pixels).flatten(),
            row.where + column.where,
            (row.taps[:, None] * self.kernel[1] + column.taps).flatten(),
            both.flatten(2).flatten(0, 1),
        )

    def counts(self) -> list[tuple[int, int]]:
        """Gradient equations and pixels of one channel, phase by phase."""
        # A tap that meets padding alone has an equation without an unknown.
        return [
            (self.filters * int((one.places < self.places).any(1).sum()), len(one.pixels))
            for one in self.phases
        ]

    @property
    def missing(self) -> int:
        """Directions of the input that the gradient equations leave open, at least."""
        return self.channels * sum(max(0, unknown - equations) for equations, unknown in self.counts())

    @property
    def forward_equations(self) -> int:
        """How many of the O Q at most say anything of what is missing (part 2 of the theorem)."""
        seen = self.patches(torch.ones(1, self.channels, self.pixels))[0].sum(0).long()
        places = int((seen > 0).sum())
        alone = self.filters * (places - min(self.filters, places))
        return min(alone, int(seen.clamp_max(self.filters).sum()))

    @property
    def sees_every_pixel(self) -> bool:
        """True if each pixel is in some window."""
        return all(bool((one.places < self.places).any(0).all()) for one in self.phases)

    @property
    def may_be_determined(self) -> bool:
        """False if no weights make the input follow from what is known (part 3 of the theorem)."""
        return self.sees_every_pixel and self.forward_equations >= self.missing

    def patches(self, inputs: Tensor) -> Tensor:
        """(B, channels, pixels) to what the windows see, (B, channels * taps, places)."""
        images = inputs.unflatten(2, (self.height, self.width))
        return F.unfold(images, self.kernel, padding=self.padding, stride=self.stride)

    def folded(self, patches: Tensor) -> Tensor:
        """The transpose of :meth:`patches`: (B, channels * taps, places) summed to (B, channels, pixels)."""
        size = (self.height, self.width)
        return F.fold(patches, size, self.kernel, padding=self.padding, stride=self.stride).flatten(2)


EXAMPLES: Mapping[str, Layer] = {
    "LeNet conv1, 28x28x1": Layer(1, 28, 28, 12, (5, 5), (2, 2), (2, 2)),
    "LeNet conv2, 14x14x12": Layer(12, 14, 14, 12, (5, 5), (2, 2), (2, 2)),
    "LeNet conv3, 7x7x12": Layer(12, 7, 7, 12, (5, 5), (1, 1), (2, 2)),
    "LeNet conv1, 32x32x3": Layer(3, 32, 32, 12, (5, 5), (2, 2), (2, 2)),
    "LeNet conv2, 16x16x12": Layer(12, 16, 16, 12, (5, 5), (2, 2), (2, 2)),
    "LeNet conv3, 8x8x12": Layer(12, 8, 8, 12, (5, 5), (1, 1), (2, 2)),
    "VGG conv1, 32x32x3": Layer(3, 32, 32, 64, (3, 3), (1, 1), (1, 1)),
    "ResNet stem, 32x32x3": Layer(3, 32, 32, 64, (7, 7), (2, 2), (3, 3)),
    "ResNet downsampling, 16x16x64": Layer(64, 16, 16, 128, (3, 3), (2, 2), (1, 1)),
    "ResNet shortcut 1x1, 16x16x64": Layer(64, 16, 16, 128, (1, 1), (2, 2), (0, 0)),
    "AlexNet conv1, 64x64x3": Layer(3, 64, 64, 64, (11, 11), (4, 4), (2, 2)),
    "patches 4x4 of a transformer, 32x32x3": Layer(3, 32, 32, 192, (4, 4), (4, 4), (0, 0)),
    "narrow, 8 filters 3x3 stride 2, 32x32x3": Layer(3, 32, 32, 8, (3, 3), (2, 2), (1, 1)),
}
"""Layers that are met often; ``may_be_determined`` of the last and of the 1x1 shortcut is False."""


def _met(size: int, kernel: int, stride: int, padding: int, places: int) -> list[Phase]:
    """The phases of one axis."""
    found = []
    for phase in range(min(stride, size)):
        pixels = torch.arange(phase, size, stride)
        taps = torch.tensor([tap for tap in range(kernel) if (tap - padding - phase) % stride == 0]).long()
        at = (pixels[None, :] + padding - taps[:, None]) // stride
        found.append(
            Phase(
                pixels, (slice(phase, None, stride),), taps, at.masked_fill((at < 0) | (at >= places), places)
            )
        )
    return found
