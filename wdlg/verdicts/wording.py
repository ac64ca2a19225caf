"""What the words of a claim ask of records, and how verdicts, data sets and shares are put into words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wdlg import data
from wdlg.study.statistics import Share, least_p, share_by_network
from wdlg.verdicts.claims import CONDITION, FAILED, REPRODUCED, UNDECIDED, rules
from wdlg.verdicts.comparison import Comparison, units_of

TOO_FEW = "too few networks to decide"


@dataclass(frozen=True)
class Lack:
    """What the words of a claim name and the records do not hold; false if there is nothing of the kind.

    Attributes:
        absent: data sets without a run of some method.
        few: data sets on which some method has fewer networks than decide anything.
        other: what else is lacking, in words.
    """

    absent: tuple[str, ...] = ()
    few: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.absent or self.few or self.other)

    def text(self) -> str:
        """In words: "not measured on LFW; fewer than 6 networks on SVHN"."""
        parts = [f"not measured on {titles(self.absent)}"] if self.absent else []
        if self.few:
            parts.append(f"fewer than {rules()['fewest_networks']} networks on {titles(self.few)}")
        return "; ".join((*parts, *self.other))


def lack(table: pd.DataFrame, methods: Iterable[str], datasets: Iterable[str]) -> Lack:
    """What records lack of runs of some methods on some data sets.

    Args:
        table: records of attacks, with dataset, method and network.
        methods, datasets: that a claim names.
    """
    absent, few = [], []
    for dataset in datasets:
        counts = [
            table[(table["dataset"] == dataset) & (table["method"] == method)]["network"].nunique()
            for method in methods
        ]
        if min(counts) == 0:
            absent.append(dataset)
        elif min(counts) < rules()["fewest_networks"]:
            few.append(dataset)
    return Lack(tuple(absent), tuple(few))


def named(table: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    """The rows of the data sets that a claim names; all rows, to be shown, where it has none of these."""
    rows = table[table["dataset"].isin(datasets)]
    return rows if len(rows) else table


def settle(holds: bool, conditions: Sequence[str], lacking: Lack, failed: str = "") -> tuple[str, str]:
    """A verdict and its condition.

    Args:
        holds: the test is passed on all that was measured.
        conditions: on what it is passed, where not on all.
        lacking: what the claim names and was not measured.
        failed: what to say where it is passed on nothing.

    >>> settle(True, ["on MNIST"], Lack())
    ('reproduced', '')
    >>> settle(True, ["on MNIST"], Lack(absent=("lfw",)))
    ('reproduced with a condition', 'on MNIST; not measured on LFW')
    >>> settle(False, [], Lack(absent=("lfw",)))
    ('undecided', 'not measured on LFW')
    """
    if holds and not lacking:
        return REPRODUCED, ""
    if conditions:
        return CONDITION, "; ".join((*conditions, *([lacking.text()] if lacking else [])))
    if lacking:
        return UNDECIDED, lacking.text()
    return FAILED, failed


def hopeless(comparisons: Iterable[Comparison]) -> bool:
    """Have some comparisons of a family so few networks that no outcome could be significant?"""
    networks = [one.networks for one in comparisons]
    return least_p(min(networks)) > rules()["level"] / len(networks)


def share_in(rows: pd.DataFrame, flags: Any) -> Share:
    """Share of runs with a flag (runs,); a network of one data set is one unit."""
    return share_by_network(np.asarray(flags, dtype=bool), units_of(rows))


def shares_in(rows: pd.DataFrame, column: str) -> dict[str, Share]:
    """Share of runs with a yes-or-no column, on each data set."""
    return {str(name): share_in(part, part[column]) for name, part in rows.groupby("dataset", sort=False)}


def listed(shares: Mapping[str, Share]) -> str:
    """Shares by data set in one phrase."""
    return "; ".join(f"{title(name)} {one.percent()} of {one.runs:,}" for name, one in shares.items())


def values(shares: Mapping[str, Share]) -> dict[str, Any]:
    """Shares and their intervals as numbers by name."""
    return {name: {"share": one.value, "low": one.low, "high": one.high} for name, one in shares.items()}


def title(dataset: str) -> str:
    """How a reader knows a data set."""
    return data.CATALOGUE[dataset].title if dataset in data.CATALOGUE else dataset


def titles(datasets: Iterable[str]) -> str:
    """Data sets in one phrase."""
    return words([title(name) for name in datasets])


def words(names: Sequence[str]) -> str:
    """Names in one phrase: "one, two and three"."""
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] if names else "none"
