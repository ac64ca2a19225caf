"""The output layer's part of a gradient, by what is known of it: a product, a sum of products, or a matrix.

For one image the weight gradient of a linear layer is ``error ⊗ features``, for N images a sum of N such
products, and after a defence, or after several steps of training, any matrix. Each kind knows its own norm,
its distance to another, its row sums and its projections, so that nobody else asks which kind it has, and no
K x M matrix is formed where it need not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wdlg.errors import InputError
from wdlg.rows import Rows
from wdlg.shapes import describe


@dataclass(frozen=True)
class Product(Rows):
    """Of one image: weight gradient ``error ⊗ features``, bias gradient ``error``.

    Attributes:
        error: softmax(logits) - target, (B, K).
        features: input of the layer, (B, M).
    """

    error: Tensor
    features: Tensor

    def __post_init__(self) -> None:
        _require_shapes(error=(self.error, "BK"), features=(self.features, "BM"))

    def __len__(self) -> int:
        return len(self.error)

    @property
    def bias(self) -> Tensor:
        """Gradient of the bias, (B, K)."""
        return self.error

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, K, M)."""
        return (*self.error.shape, self.features.shape[1])

    def weight(self) -> Tensor:
        """Gradient of the weights written out, (B, K, M)."""
        return self.error[:, :, None] * self.features[:, None, :]

    def row_sums(self) -> Tensor:
        """Sum of each row of the weight gradient, (B, K)."""
        return self.error * self.features.sum(-1, keepdim=True)

    def projected(self, lines: Tensor) -> Tensor:
        """The weight gradient times ``lines`` (M, L), (B, K, L)."""
        return self.error[:, :, None] * (self.features @ lines)[:, None, :]

    def squared_norm(self) -> Tensor:
        """Of weight and bias together, (B,)."""
        return _dot(self.error, self.error) * (_dot(self.features, self.features) + 1)

    def squared_distance(self, other: OutputGradient) -> Tensor:
        """To another, over weight and bias, (B,). See :func:`squared_distance_of_products`."""
        if isinstance(other, Product):
            gap = self.error - other.error
            return _dot(gap, gap) + squared_distance_of_products(
                (self.error, self.features), (other.error, other.features)
            )
        if isinstance(other, Dense):
            return self.squared_distance(other.nearest) + _of_the_rest(self, other.nearest, -other.rest)
        return _squared_distance_written_out(self, other)

    def scaled(self, factor: Tensor) -> Product:
        """Times a number for each attack, (B,)."""
        return Product(factor[:, None] * self.error, self.features)


@dataclass(frozen=True)
class Products(Rows):
    """Of N images together: weight gradient ``sum_n error_n ⊗ features_n``, bias gradient ``sum_n error_n``.

    Attributes:
        errors: (B, N, K), with the weight of each image in the mean.
        features: inputs of the layer, (B, N, M).
    """

    errors: Tensor
    features: Tensor

    def __post_init__(self) -> None:
        _require_shapes(errors=(self.errors, "BNK"), features=(self.features, "BNM"))

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def bias(self) -> Tensor:
        """Gradient of the bias, (B, K)."""
        return self.errors.sum(1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, K, M)."""
        return (len(self), self.errors.shape[2], self.features.shape[2])

    def weight(self) -> Tensor:
        """Gradient of the weights written out, (B, K, M)."""
        return self.errors.transpose(1, 2) @ self.features

    def row_sums(self) -> Tensor:
        """Sum of each row of the weight gradient, (B, K)."""
        return (self.errors * self.features.sum(-1, keepdim=True)).sum(1)

    def projected(self, lines: Tensor) -> Tensor:
        """The weight gradient times ``lines`` (M, L), (B, K, L)."""
        return self.errors.transpose(1, 2) @ (self.features @ lines)

    def squared_norm(self) -> Tensor:
        """Of weight and bias together, (B,)."""
        return _squared_norm_of_sum(self.errors, self.features) + _dot(self.bias, self.bias)

    def squared_distance(self, other: OutputGradient) -> Tensor:
        """To another, over weight and bias, (B,).

        Between as many products it is taken pair by pair, ``e ⊗ f - d ⊗ a = (e - d) ⊗ f + d ⊗ (f - a)``, so
        that nothing large cancels as the pairs come close.
        """
        if not isinstance(other, Products) or other.errors.shape != self.errors.shape:
            return _squared_distance_written_out(self, other)
        gap = self.errors - other.errors
        total = gap.sum(1)
        left = torch.cat((gap, other.errors), dim=1)
        right = torch.cat((self.features, self.features - other.features), dim=1)
        return _dot(total, total) + _squared_norm_of_sum(left, right)

    def scaled(self, factor: Tensor) -> Products:
        """Times a number for each attack, (B,)."""
        return Products(factor[:, None, None] * self.errors, self.features)


@dataclass(frozen=True)
class Dense(Rows):
    """Any matrix, held as a product and what that misses: weight gradient ``bias ⊗ features + rest``.

    So its distance to a product close to it needs one product of a matrix and a vector, and keeps its digits.

    Attributes:
        bias: gradient of the bias, (B, K).
        features: of the product, (B, M).
        rest: (B, K, M).
    """

    bias: Tensor
    features: Tensor
    rest: Tensor

    def __post_init__(self) -> None:
        _require_shapes(bias=(self.bias, "BK"), features=(self.features, "BM"), rest=(self.rest, "BKM"))

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> Dense:
        """Weight (B, K, M) and bias gradient (B, K) as they are, with no product taken out."""
        return cls(bias, weight.new_zeros(len(weight), weight.shape[2]), weight)

    def __len__(self) -> int:
        return len(self.bias)

    def in_precision(self, dtype: torch.dtype) -> Dense:
        """The same matrix in that type: an entry that is zero stays zero, as the parts alone would not."""
        bias, features, weight = (part.to(dtype) for part in (self.bias, self.features, self.weight()))
        return Dense(bias, features, weight - Product(bias, features).weight())

    @property
    def nearest(self) -> Product:
        """The product."""
        return Product(self.bias, self.features)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, K, M)."""
        return (*self.bias.shape, self.features.shape[1])

    def weight(self) -> Tensor:
        """Gradient of the weights written out, (B, K, M)."""
        return self.nearest.weight() + self.rest

    def row_sums(self) -> Tensor:
        """Sum of each row of the weight gradient, (B, K)."""
        return self.nearest.row_sums() + self.rest.sum(-1)

    def projected(self, lines: Tensor) -> Tensor:
        """The weight gradient times ``lines`` (M, L), (B, K, L)."""
        return self.nearest.projected(lines) + self.rest @ lines

    def squared_norm(self) -> Tensor:
        """Of weight and bias together, (B,)."""
        crossed = _dot(self.bias, (self.rest @ self.features[:, :, None])[:, :, 0])
        return self.nearest.squared_norm() + 2 * crossed + self.rest.square().sum((1, 2))

    def squared_distance(self, other: OutputGradient) -> Tensor:
        """To another, over weight and bias, (B,)."""
        if isinstance(other, Products):
            return _squared_distance_written_out(self, other)
        theirs = other.nearest if isinstance(other, Dense) else other
        rest = self.rest - other.rest if isinstance(other, Dense) else self.rest
        return self.nearest.squared_distance(theirs) + _of_the_rest(self.nearest, theirs, rest)

    def scaled(self, factor: Tensor) -> Dense:
        """Times a number for each attack, (B,)."""
        return replace(self, bias=factor[:, None] * self.bias, rest=factor[:, None, None] * self.rest)


OutputGradient = Product | Products | Dense


def inner_products(output: OutputGradient, along: OutputGradient) -> Tensor:
    """Of the derivatives of weight and bias along n directions, (n, n).

    Args:
        output: of one attack.
        along: of the same kind, with a row for each direction: the derivatives of what is held.
    """
    if isinstance(output, Dense):
        assert isinstance(along, Dense)
        total = along.bias @ along.bias.T
        for rows in derivatives_of_weight(output, along):
            total = total + rows @ rows.T
        return total
    (e, f), (E, A) = _factors(output), _factors(along)
    e, f = e[0], f[0]
    # Along a direction the weight changes by sum_i E_i ⊗ f_i + e_i ⊗ A_i, the bias by sum_i E_i.
    by_errors = ((f @ f.T + 1) @ E).flatten(1) @ E.flatten(1).T
    by_features = ((e @ e.T) @ A).flatten(1) @ A.flatten(1).T
    crossed = (E @ e.T).flatten(1) @ (f @ A.mT).flatten(1).T
    return by_errors + by_features + crossed + crossed.T


def derivatives_of_weight(output: OutputGradient, along: OutputGradient) -> Iterator[Tensor]:
    """The derivatives of each row of the weight, (n, M) for one class after the other; see above."""
    if isinstance(output, Dense):
        assert isinstance(along, Dense)
        for k, rows in enumerate(derivatives_of_weight(output.nearest, along.nearest)):
            yield rows + along.rest[:, k]
        return
    (e, f), (E, A) = _factors(output), _factors(along)
    for k in range(e.shape[2]):
        yield E[:, :, k] @ f[0] + torch.einsum("i,nim->nm", e[0, :, k], A)


def _factors(output: OutputGradient) -> tuple[Tensor, Tensor]:
    """Errors (B, N, K) and features (B, N, M) of the N images of a product or of a sum of products."""
    if isinstance(output, Product):
        return output.error[:, None], output.features[:, None]
    assert isinstance(output, Products)
    return output.errors, output.features


def squared_distance_of_products(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Tensor:
    """``|e ⊗ f - d ⊗ a|²`` of factors (e, f) and (d, a), each (B, n) and (B, m); (B,).

    Expanded around ``d ⊗ a``: with the differences E = e - d and A = f - a it is
    ``|d|²|A|² + 2 (E·d)(A·f) + |E|²|f|²``. No n x m matrix is formed, and nothing large cancels as the two
    come close to each other.
    """
    (e, f), (d, a) = ours, theirs
    E, A = e - d, f - a
    return _dot(d, d) * _dot(A, A) + 2 * _dot(E, d) * _dot(A, f) + _dot(E, E) * _dot(f, f)


def _of_the_rest(ours: Product, theirs: Product, rest: Tensor) -> Tensor:
    """What a matrix R (B, K, M), added to ours less theirs, adds to their squared distance, (B,).

    With the factors (e, f) and (d, a) ``|e ⊗ f - d ⊗ a + R|² - |e ⊗ f - d ⊗ a|² = 2 (E·Rf + d·RA) + |R|²``,
    where E = e - d and A = f - a. One matrix times two vectors: the matrix of ours is not formed, and nothing
    large cancels at equality.
    """
    gaps = torch.stack((ours.features, ours.features - theirs.features), dim=2)
    by_features, by_gap = (rest @ gaps).unbind(2)
    mixed = _dot(ours.error - theirs.error, by_features) + _dot(theirs.error, by_gap)
    return 2 * mixed + rest.square().sum((1, 2))


def _squared_norm_of_sum(left: Tensor, right: Tensor) -> Tensor:
    """``|sum_n left_n ⊗ right_n|²`` of (B, N, K) and (B, N, M), by their inner products; (B,)."""
    return ((left @ left.transpose(1, 2)) * (right @ right.transpose(1, 2))).sum((1, 2))


def _squared_distance_written_out(ours: OutputGradient, theirs: OutputGradient) -> Tensor:
    gap = ours.bias - theirs.bias
    return _dot(gap, gap) + (ours.weight() - theirs.weight()).square().sum((1, 2))


def _require_shapes(**parts: tuple[Tensor, str]) -> None:
    """Raise :class:`InputError` unless sizes of one letter are equal in all parts."""
    sizes: dict[str, int] = {}
    for name, (part, letters) in parts.items():
        if not isinstance(part, Tensor):
            raise InputError(f"{name} is {describe(part)}, but must be a tensor.")
        if part.ndim != len(letters) or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(letters, part.shape, strict=True)
        ):
            wanted = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
            raise InputError(f"{name} has shape {tuple(part.shape)}, but must have shape ({wanted}).")


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1)
