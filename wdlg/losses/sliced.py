"""The sliced Wasserstein distance between gradient rows (Rabin et al. 2012; Bonneel et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wdlg.errors import require_choice, require_count
from wdlg.losses.total import ROOTS, add_up
from wdlg.updates.gradient import Gradient, require_alike_gradients


@dataclass(frozen=True)
class SlicedWasserstein:
    """Mean squared Wasserstein-2 distance of the rows' projections on random lines, summed over parameters.

    On a line exact transport is sorting, so no plan is computed. Mass moves freely between units, as in the
    plain reading of :class:`~wdlg.losses.wasserstein.Wasserstein`.

    Args:
        projections: lines for each parameter, at least 1.
        seed: decides the lines, which stay the same for a whole attack.
        root: "none", "each" (of each parameter's mean) or "total" (of their sum).

    Raises:
        InputError: a setting is out of range.
    """

    projections: int = 50
    seed: int = 0
    root: str = "none"

    def __post_init__(self) -> None:
        require_count("projections", self.projections)
        require_count("seed", self.seed, at_least=0, below=2**63)
        require_choice("root", self.root, ROOTS)

    def __call__(self, dummy: Gradient, shared: Gradient) -> Tensor:
        """Loss of each attack, (B,)."""
        require_alike_gradients(dummy, shared)
        generator = torch.Generator().manual_seed(self.seed)
        pairs = [
            (x @ lines, y @ lines)
            for x, y in zip(dummy.hidden, shared.hidden, strict=True)
            for lines in [self._lines(x, generator)]
        ]
        lines = self._lines(dummy.output.features, generator)
        pairs.append((dummy.output.projected(lines), shared.output.projected(lines)))
        pairs.append((dummy.bias[:, :, None], shared.bias[:, :, None]))
        costs = [(x.sort(1).values - y.sort(1).values).square().mean((1, 2)) for x, y in pairs]
        return add_up(costs, len(dummy), self.root)

    def _lines(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Random unit vectors as columns, (d, projections), for points (..., d); on a line the only one."""
        size = like.shape[-1]
        if size == 1:
            return like.new_ones(1, 1)
        lines = torch.randn(size, self.projections, generator=generator, dtype=torch.float64)
        return (lines / lines.norm(dim=0)).to(like)
