"""The last layer, a linear one: products of rows with one matrix for each row, or with one matrix for all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wdlg import compiled

HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
)
"""For a few rows times a large matrix. torch's ``@`` is Intel's MKL, which runs at half speed on processors
of other makers; oneDNN, with which torch computes convolutions, does not, is faster for few rows, and faster
still with a matrix that it may keep in an order of its own. torch has no public way to the same: a matrix
given to ``torch.nn.functional.linear`` by ``to_mkldnn`` rounds a single row otherwise, and is slower for
small ones, since rows are brought there and back. So private names are used, where torch has them."""


@dataclass(frozen=True)
class OutputLayer:
    """``z = V f + c`` for B attacks.

    Args:
        weights: V, (N, K, M), with N = B or N = 1 for all.
        biases: c, (N, K).
    """

    weights: Tensor
    biases: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, M) to class scores (B, K)."""
        return self.times_transposed(features) + self.biases

    def times_transposed(self, rows: Tensor) -> Tensor:
        """Rows (B, M) times Vᵀ, (B, K)."""
        return self._times(rows, self.weights.transpose(1, 2), 0)

    def times(self, rows: Tensor) -> Tensor:
        """Rows (B, K) times V, (B, M)."""
        return self._times(rows, self.weights, 1)

    def _times(self, rows: Tensor, matrices: Tensor, side: int) -> Tensor:
        if len(matrices) > 1:
            return (rows[:, None, :] @ matrices)[:, 0]
        # torch has no derivative for this product of oneDNN.
        if rows.requires_grad or rows.dtype != torch.float32 or rows.device.type != "cpu" or not HAS_ONEDNN:
            return rows @ matrices[0]
        if len(rows) == 1 and compiled.in_use():
            return torch.from_numpy(self._times_one(compiled.as_array(rows), side))
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed[side], None, "none", [], "")

    def times_array(self, rows: np.ndarray, side: int) -> np.ndarray:
        """The same products of arrays, by the one matrix: rows times Vᵀ for side 0, times V for side 1."""
        if len(rows) == 1 and rows.dtype == np.float32 and HAS_ONEDNN:
            return self._times_one(rows, side)
        matrices = self.weights if side else self.weights.transpose(1, 2)
        return self._times(torch.from_numpy(rows), matrices, side).numpy()

    def _times_one(self, row: np.ndarray, side: int) -> np.ndarray:
        """oneDNN's product of one row, to the bit, without the calls that take it most of its time."""
        from wdlg.networks.compiled_output_layer import product

        matrix = self._both_ways[side]
        out = np.empty((1, matrix.shape[1]), row.dtype)
        product(row[0], matrix, out[0])
        return out

    @cached_property
    def _both_ways(self) -> tuple[np.ndarray, np.ndarray]:
        """Vᵀ and V with the rows that are added up one after the other."""
        matrix = self.weights[0].detach()
        return compiled.as_array(matrix.T), compiled.as_array(matrix)

    @cached_property
    def _packed(self) -> tuple[Tensor, Tensor]:
        """V for both products as oneDNN wants it. To bring it there takes as long as five products."""
        matrix = self.weights[0].detach()
        return tuple(torch.ops.mkldnn._reorder_linear_weight(one.contiguous()) for one in (matrix, matrix.T))
