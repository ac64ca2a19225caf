"""The cost of transport between pairs of point sets, with its derivative: exact or entropic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wdlg.losses.ground_cost import GroundCost
from wdlg.losses.point_sets import Points
from wdlg.losses.rank_one import costs_without_matrix
from wdlg.losses.solver import Problem, Solver
from wdlg.losses.value import Value


class Transport(Protocol):
    """Carries the points of every parameter of a dummy gradient to those of the shared one."""

    def costs(self, pairs: Sequence[Points]) -> list[Tensor]:
        """Cost of each problem of each parameter, (P,), differentiable, at a mass of 1 in all."""

    def plans(self, pairs: Sequence[Points]) -> list[Tensor]:
        """Plan of each problem of each parameter, (P, n, n), without a graph."""


@dataclass(frozen=True)
class Exact:
    """Transport along a permutation: that of least cost, or the identity. No matrix is formed for sorting."""

    cost: GroundCost
    solver: Solver
    value: Value

    def costs(self, pairs: Sequence[Points]) -> list[Tensor]:
        return [self._cost(points) for points in pairs]

    def plans(self, pairs: Sequence[Points]) -> list[Tensor]:
        return [
            permutation_plan(self.solver.permutation(points, self.cost)[0], points.paired().detach())
            for points in pairs
        ]

    def _cost(self, points: Points) -> Tensor:
        order, penalty = self.solver.permutation(points, self.cost)
        cost = self.cost(points.paired(order), self.cost.scale(points)).mean(1)
        # A set is carried to itself for nothing, so what is debiased is the dual value.
        return cost if self.value.is_plain else cost + penalty


@dataclass(frozen=True)
class Entropic:
    """Entropic transport: solve for the plans, value them, and differentiate by the squared distances."""

    cost: GroundCost
    solver: Solver
    value: Value

    def costs(self, pairs: Sequence[Points]) -> list[Tensor]:
        apart = self._without_matrix(pairs[-2:])
        problems = [self._problem(points) for points in pairs[: len(pairs) - len(apart)]]
        if self.value.is_debiased:
            return self._debiased(problems)
        solved = zip(problems, *self._solve(problems), strict=True)
        return [value + each.points.pull(weight) for each, value, weight in solved] + apart

    def plans(self, pairs: Sequence[Points]) -> list[Tensor]:
        plans = self.solver.plans(
            [self._problem(points) for points in pairs], unrolled=self.value.is_unrolled
        )
        return [plan.detach() for plan in plans]

    @property
    def _weights_are_plans(self) -> bool:
        return self.value.is_differentiated_by_plans(self.cost)

    def _problem(self, points: Points, like: Problem | None = None) -> Problem:
        return self.solver.problem(points, self.cost, tracked=not self._weights_are_plans, like=like)

    def _without_matrix(self, output: Sequence[Points]) -> list[Tensor]:
        """Costs of the output layer's weight and bias where no matrix of all pairs is needed, else none."""
        if not (self.value.is_plain and self._weights_are_plans) or self.solver.steers:
            return []
        return costs_without_matrix(output, self.solver)

    def _debiased(self, problems: Sequence[Problem]) -> list[Tensor]:
        ours = [self._problem(each.points.of_dummy(), each) for each in problems]
        theirs = [self._problem(each.points.of_shared(), each) for each in problems]
        values, weights = self._solve([*problems, *ours, *theirs])
        costs = []
        for place, (each, our) in enumerate(zip(problems, ours, strict=True)):
            value, our_value, their_value = values[place :: len(problems)]
            weight, our_weight, _ = weights[place :: len(problems)]
            if self.value.is_unrolled:
                # The dummy is on both sides. A plan held fixed is symmetric as far as it has converged, and
                # one side alone cancels at equality even if it has not.
                our_weight = (our_weight + our_weight.transpose(1, 2)) / 2
            pull = each.points.pull(weight) - our.points.pull(our_weight)
            costs.append(value - our_value / 2 - their_value / 2 + pull)
        return costs

    def _solve(self, problems: Sequence[Problem]) -> tuple[list[Tensor], list[Tensor]]:
        """Value (P,) of each, without a graph, and its derivative by the squared distances, (P, n, n)."""
        plans = self.solver.plans(problems, unrolled=self.value.is_unrolled)
        with torch.enable_grad():
            values = [
                self.value(each, plan, self.solver.absolute_eps(each))
                for each, plan in zip(problems, plans, strict=True)
            ]
            if self._weights_are_plans:
                return values, plans
            total = torch.stack([value.sum() for value in values]).sum()
            weights = torch.autograd.grad(total, [each.squared for each in problems])
        return [value.detach() for value in values], list(weights)


def permutation_plan(order: Tensor | None, like: Tensor) -> Tensor:
    """Row i carried whole to column ``order[p, i]``, or i for None, with mass 1/n: (P, n, n) for (P, n)."""
    n = like.shape[1]
    if order is None:
        order = torch.arange(n, device=like.device).expand(like.shape)
    return like.new_zeros(*like.shape, n).scatter_(2, order[:, :, None], 1 / n)
