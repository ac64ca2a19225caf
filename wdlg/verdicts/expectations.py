"""What defences were expected to do, and whether they did: expectations.yaml judged by records.

The file beside this one was written before the runs of ``studies/defences.yaml``. Nothing is typed by hand
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml

from wdlg import data
from wdlg.evaluation import recovered
from wdlg.sharing.defences import DEFENCES
from wdlg.study.statistics import Share, share, share_by_network

HELD = "as expected"
BROKEN = "not as expected"
OPEN = "undecided"

SETTINGS = sorted({name for defence in DEFENCES.values() for name in defence.__annotations__})
"""Columns of records that tell one strength of a defence from another."""


@dataclass(frozen=True)
class Judged:
    """An expectation with its outcome.

    Attributes:
        id, defence, expected, test: as in ``expectations.yaml``.
        outcome: "as expected", "not as expected", or "undecided" where something was not run or where the
            attack fails without a defence, too.
        found: the numbers, in one line of text.
    """

    id: str
    defence: str
    expected: str
    test: str
    outcome: str
    found: str


@cache
def rules() -> dict[str, Any]:
    """The content of ``expectations.yaml``."""
    return yaml.safe_load(files("wdlg.verdicts").joinpath("expectations.yaml").read_text(encoding="utf-8"))


def judge(records: pd.DataFrame) -> list[Judged]:
    """Every expectation, judged.

    Args:
        records: of all parts of the study, as :meth:`wdlg.study.store.Store.read_all` gives them.
    """
    tables = {}
    if len(records):
        for part, rows in records.groupby("part", sort=False):
            tables[part] = (
                successes(rows) if "mse" in rows and rows["mse"].notna().any() else read_right(rows)
            )
    judged = []
    for entry in rules()["expectations"]:
        outcomes: list[bool | None] = []
        found: list[str] = []
        for check in entry["checks"]:
            for met, text in _check(tables.get(check["part"]), check):
                outcomes.append(met)
                found.append(text)
        outcome = OPEN if not outcomes or None in outcomes else HELD if all(outcomes) else BROKEN
        texts = {name: entry[name] for name in ("id", "defence", "expected", "test")}
        judged.append(Judged(**texts, outcome=outcome, found="; ".join(found) or "not run"))
    return judged


def as_table(judged: Iterable[Judged]) -> pd.DataFrame:
    """The outcomes as a table for a page."""
    return pd.DataFrame(
        [
            {
                "Defence": one.defence,
                "Expected": one.expected,
                "Test": one.test,
                "Outcome": one.outcome,
                "Found": one.found,
            }
            for one in judged
        ]
    )


def successes(records: pd.DataFrame) -> pd.DataFrame:
    """Success of each attack against each strength of each defence.

    Args:
        records: of attacks, as :meth:`wdlg.study.store.Store.read_all` gives them; cases without a defence
            have the defence "none".

    Returns:
        Columns part, dataset, method, defence, the settings of the defences, success (the
        :class:`~wdlg.study.statistics.Share` of runs with it), ssim, relative_error and cosine (medians).
    """
    by = ["part", "dataset", "method", "defence", *(name for name in SETTINGS if name in records)]
    table = records.assign(good=recovered(records["mse"])).groupby(by, sort=False, dropna=False)
    return table.agg(
        success=("good", lambda good: share_by_network(good, records.loc[good.index, "network"])),
        ssim=("ssim", "median"),
        relative_error=("relative_error", "median"),
        cosine=("cosine", "median"),
    ).reset_index()


def best_attack(table: pd.DataFrame) -> pd.DataFrame:
    """Of all attacks against a strength of a defence, the one with most success, or else the highest SSIM.

    Args:
        table: of :func:`successes`.

    Returns:
        Rows of the table, one for each data set and strength.
    """
    by = ["dataset", "defence", *(name for name in SETTINGS if name in table)]
    ranked = table.assign(value=[one.value for one in table["success"]])
    ranked = ranked.sort_values(["value", "ssim"], ascending=False, kind="stable")
    best = ranked.drop_duplicates(by).sort_index()
    return best.drop(columns="value").reset_index(drop=True)


def read_right(records: pd.DataFrame) -> pd.DataFrame:
    """How many labels each rule reads under each strength of each defence.

    Returns:
        Columns dataset, rule, defence, the settings of the defences, share, relative_error and cosine
        (medians).
    """
    by = ["dataset", "rule", "defence", *(name for name in SETTINGS if name in records)]
    table = records.groupby(by, sort=False, dropna=False)
    return table.agg(
        success=("correct", _share), relative_error=("relative_error", "median"), cosine=("cosine", "median")
    ).reset_index()


def name_of(row: Mapping[str, Any]) -> str:
    """The defence of a row of :func:`successes` in words, such as "pruning, share 0.5"."""
    if row["defence"] == "none":
        return "none"
    parts = [f"{name} {_plain(row[name])}" for name in DEFENCES[row["defence"]].__annotations__]
    return ", ".join((str(row["defence"]).replace("_", " "), *parts))


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, bool | str) else f"{float(value):g}"


def _share(flags: pd.Series) -> Share:
    return share(int(flags.sum()), len(flags))


def _check(table: pd.DataFrame | None, check: Mapping[str, Any]) -> list[tuple[bool | None, str]]:
    """One outcome and its numbers for each data set and attack, or rule, of a check."""
    if table is None:
        return [(None, f"{check['part']}: not run")]
    of_rules = "rules" in check
    name = "rule" if of_rules else "method"
    results: list[tuple[bool | None, str]] = []
    for dataset in table["dataset"].unique():
        for who in check["rules" if of_rules else "attacks"]:
            rows = table[(table["dataset"] == dataset) & (table[name] == who)]
            base = rows[rows["defence"] == "none"]["success"]
            chosen = rows[_matches(rows, check["where"])]["success"]
            label = f"{who}, {data.CATALOGUE[dataset].title}"
            if not len(base) or not len(chosen):
                results.append((None, f"{label}: not run"))
                continue
            before = base.iloc[0]
            verdicts = [_outcome(check, before, one) for one in chosen]
            good = None if None in verdicts else all(verdicts)
            found = f"{_counts(chosen)}, unprotected {before.successes} of {before.runs}"
            results.append((good, f"{label}: {found}"))
    return results


def _counts(shares: Iterable[Share]) -> str:
    """Successes at each strength, "3, 0 of 24", or once if they are all the same."""
    counts = [one.successes for one in shares]
    runs = next(iter(shares)).runs
    if len(set(counts)) == 1 < len(counts):
        return f"{counts[0]} of {runs} in each of {len(counts)} settings"
    return f"{', '.join(map(str, counts))} of {runs}"


def _outcome(check: Mapping[str, Any], before: Share, now: Share) -> bool | None:
    """Whether a share is what the check expects; None if that says nothing."""
    stopped = now.value <= rules()["stopped"]
    if check["outcome"] in ("stopped", "standing") and before.value <= rules()["stopped"]:
        return None
    tests: dict[str, Callable[[], bool]] = {
        "stopped": lambda: stopped,
        "standing": lambda: not stopped and now.value >= rules()["standing"] * before.value,
        "no fewer": lambda: now.successes >= before.successes,
        "at least": lambda: now.value >= check["share"],
        "at most": lambda: now.value <= check["share"],
    }
    return tests[check["outcome"]]()


def _matches(rows: pd.DataFrame, where: Mapping[str, Any]) -> pd.Series:
    """The rows whose columns have the wanted value, or one of the wanted ones."""
    chosen = pd.Series(True, index=rows.index)
    for column, wanted in where.items():
        chosen &= rows[column].isin(wanted if isinstance(wanted, list) else [wanted])
    return chosen
