"""Attacks that wait for a place: drawn from starts as places become free, and numbered in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from wdlg.attacks.base import Start


class Waiting:
    """The attacks of many starts, which are looked at one after the other, and never kept.

    Args:
        starts: where attacks come from.
        look_at: called with each start before an attack is taken from it; raises if it cannot be used.
    """

    def __init__(self, starts: Iterable[Start], look_at: Callable[[Start], object]) -> None:
        self._starts = iter(starts)
        self._look_at = look_at
        self._in_hand: Start | None = None
        self._taken = 0  # of the start in hand
        self._begun = 0  # of all starts

    def take(self, room: int) -> Iterator[tuple[Tensor, Start]]:
        """Numbers and copies of the next attacks, ``room`` of them or all that there are, start by start."""
        while room and (start := self._load()) is not None:
            part = self._next(start, room)
            room -= len(part[0])
            yield part

    def rest_of_the_start(self) -> Iterator[tuple[Tensor, Start]]:
        """The attacks of the start in hand that have not begun; if it has none left, those of the next."""
        if (start := self._load()) is not None:
            yield self._next(start, len(start))

    def _load(self) -> Start | None:
        if self._in_hand is None:
            self._in_hand, self._taken = next(self._starts, None), 0
            if self._in_hand is not None:
                self._look_at(self._in_hand)
        return self._in_hand

    def _next(self, start: Start, room: int) -> tuple[Tensor, Start]:
        index = torch.arange(self._taken, min(self._taken + room, len(start)))
        number = self._begun + torch.arange(len(index))
        self._taken += len(index)
        self._begun += len(index)
        if self._taken == len(start):
            self._in_hand = None
        return number, start.select(index)
