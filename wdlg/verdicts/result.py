"""What verdicts are computed from, and what a measure finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Records:
    """What the verdicts are computed from; empty tables where nothing was run.

    Attributes:
        attacks: rows of :meth:`wdlg.study.store.Store.read`, or the records of a
            :class:`wdlg.study.paired.Outcome`.
        second: the same of a second final comparison, after a second search for the strongest loss.
        ground: the same of runs that have a network of their own for each image.
        rates: the same at several learning rates, with the columns optimizer, learning_rate and budget, the
            gradient evaluations that an attack could make.
        labels: rows of :func:`wdlg.study.labels.compare_rules`, with the columns dataset, activation,
            architecture, initial and dtype.
        second_order, damped, accelerated: records of the studies ``second-order``, ``damped`` and
            ``accelerated``, with different settings of Levenberg-Marquardt.
        trained: rows of ``benchmarks/trained.json``.
        closed_form: rows of ``benchmarks/exact.json``.
    """

    attacks: pd.DataFrame = field(default_factory=pd.DataFrame)
    second: pd.DataFrame = field(default_factory=pd.DataFrame)
    ground: pd.DataFrame = field(default_factory=pd.DataFrame)
    rates: pd.DataFrame = field(default_factory=pd.DataFrame)
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    second_order: pd.DataFrame = field(default_factory=pd.DataFrame)
    damped: pd.DataFrame = field(default_factory=pd.DataFrame)
    accelerated: pd.DataFrame = field(default_factory=pd.DataFrame)
    trained: pd.DataFrame = field(default_factory=pd.DataFrame)
    closed_form: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Result:
    """What a measure found.

    Attributes:
        verdict: one of ``VERDICTS``.
        condition: in words, where the verdict has one; why, where it is undecided.
        summary: the numbers in one line of text.
        numbers: the numbers by name, for machines.
        interval: the 95 % interval of the number that decides most, or None.
        headline: what decides in one number and a few words, for a card; empty if no number can say it.
    """

    verdict: str
    summary: str
    condition: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    headline: str = ""
