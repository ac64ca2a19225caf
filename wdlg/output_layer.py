"""The last layer, a linear one: products of rows with one matrix for each row, or one matrix for all."""

from __future__ import annotations

import torch
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""For a few rows times a large matrix. torch's ``@`` is Intel's MKL, which runs at half speed on processors
of other makers; oneDNN, with which torch computes convolutions, does not, and is faster for few rows."""


def rows_times(rows: Tensor, matrices: Tensor) -> Tensor:
    """Each row (B, i) times its own matrix (B, i, j), or all rows times the one matrix (1, i, j)."""
    if len(matrices) > 1:
        return (rows[:, None, :] @ matrices)[:, 0]
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and HAS_ONEDNN:
        return torch.ops.mkldnn._linear_pointwise(rows, matrices[0].T, None, "none", [], "")
    return rows @ matrices[0]


def logits_of(features: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """Features (B, M) to class scores (B, K)."""
    return rows_times(features, weights.transpose(1, 2)) + biases
