"""The claims ledger: a verdict for each claim of the paper. It is computed, and nothing is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from wdlg.evaluation import SUCCESS
from wdlg.study.specification import AttackCell, Cell, LabelCell, Study
from wdlg.study.statistics import share_by_network
from wdlg.study.store import Store
from wdlg.verdicts.claims import UNDECIDED, rules
from wdlg.verdicts.comparison import NotMeasuredError, pooled, successes
from wdlg.verdicts.measures import MEASURES, Records, Result


@dataclass(frozen=True)
class Earlier:
    """What the ledger said of a claim before its test was changed, as in ``claims.yaml``.

    Attributes:
        until: the day of the change.
        verdict, condition: of then.
        reason: why they changed.
    """

    until: str
    verdict: str
    condition: str
    reason: str

    def text(self) -> str:
        """As text: "Until 1 January 2026: reproduced. The reason of the change."."""
        return f"Until {self.until}: {_with_condition(self.verdict, self.condition)}. {self.reason}"


@dataclass(frozen=True)
class Entry:
    """A claim with its verdict.

    Attributes:
        id, section, claim, test: as in ``claims.yaml``.
        figure: the page with the figure.
        command: what repeats the numbers.
        result: the verdict and its numbers.
        earlier: what stood here before the test was changed, or None.
    """

    id: str
    section: str
    claim: str
    test: str
    figure: str
    command: str
    result: Result
    earlier: Earlier | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``wdlg study report --json``."""
        return {
            "id": self.id,
            "claim": self.claim,
            "section": self.section,
            "test": self.test,
            "verdict": self.result.verdict,
            "condition": self.result.condition,
            "earlier": None if self.earlier is None else asdict(self.earlier),
            "summary": self.result.summary,
            "numbers": dict(self.result.numbers),
            "interval": None if self.result.interval is None else list(self.result.interval),
            "figure": self.figure,
            "command": self.command,
        }


def ledger(records: Records, *, command: str, study: str = "") -> list[Entry]:
    """The verdict of every claim.

    Args:
        records: what to judge. A claim that they say nothing about is undecided.
        command: what repeats them.
        study: whose records they are; an earlier verdict is shown beside that of the same study only.
    """
    entries = []
    for claim in rules()["claims"]:
        try:
            result = MEASURES[claim["measure"]](records, **claim.get("settings", {}))
        except NotMeasuredError as error:
            result = Result(UNDECIDED, "not measured here", condition=str(error))
        texts = {name: claim[name] for name in ("id", "section", "claim", "test", "figure")}
        entries.append(Entry(**texts, command=command, result=result, earlier=_earlier(claim, study)))
    return entries


def _earlier(claim: Mapping[str, Any], study: str) -> Earlier | None:
    """What ``claims.yaml`` says of an earlier verdict on the records of a study."""
    said = claim.get("earlier")
    if said is None or said["study"] != study:
        return None
    return Earlier(said["until"], said["verdict"], said["condition"], said["reason"])


def as_table(entries: list[Entry]) -> pd.DataFrame:
    """The ledger as a table for a page."""
    verdicts = []
    for entry in entries:
        verdict = _with_condition(entry.result.verdict, entry.result.condition)
        verdicts.append(verdict if entry.earlier is None else f"{verdict}. {entry.earlier.text()}")
    return pd.DataFrame(
        {
            "Claim": [entry.claim for entry in entries],
            "Section": [entry.section for entry in entries],
            "Test": [entry.test for entry in entries],
            "Verdict": verdicts,
            "Numbers": [entry.result.summary for entry in entries],
        }
    )


def _with_condition(verdict: str, condition: str) -> str:
    return f"{verdict}: {condition}" if condition else verdict


def gain_table(attacks: pd.DataFrame, method: str, opponent: str) -> pd.DataFrame:
    """Paired gain of one method over another, for each data set and for all together.

    Returns:
        Columns dataset, networks, cases, and for success and calm (no explosion) the mean gain with its
        interval, and the p-value of the sign-flip test over networks, not corrected.
    """
    both = attacks[attacks["method"].isin([method, opponent])]
    tables = {
        str(name): rows for name, rows in both.groupby("dataset", sort=False) if rows["method"].nunique() == 2
    }
    if not tables:
        raise NotMeasuredError(f"there are no records of {method} beside {opponent}")
    tables["all together"] = pd.concat(list(tables.values()))
    rows = []
    for name, table in tables.items():
        results = {score: pooled(table, score, method, opponent) for score in ("success", "calm")}
        row: dict[str, object] = {
            "dataset": name,
            "networks": results["success"].networks,
            "cases": results["success"].cases,
        }
        for score, one in results.items():
            row |= {f"gain in {score}": one.text(), f"p ({score})": f"{one.p:.2g}"}
        rows.append(row)
    return pd.DataFrame(rows)


def ground(
    attacks: pd.DataFrame,
    published: Mapping[str, Mapping[str, Mapping[float, float]]],
    *,
    reading_error: float = 0.02,
) -> pd.DataFrame:
    """Our success beside published success: is the ground of the comparison sound?

    Args:
        attacks: records.
        published: share of successful runs by data set, method and MSE threshold.
        reading_error: of the published share, which was read off a plot.

    Returns:
        One row for each data set and method that both have: dataset, method, runs, here (share of runs),
        interval (with networks as units), published, agrees (the published share, give or take its reading
        error, lies within the interval).
    """
    rows = []
    for dataset, methods in published.items():
        for method, points in methods.items():
            runs = attacks[(attacks["dataset"] == dataset) & (attacks["method"] == method)]
            said = points[SUCCESS]
            if len(runs):
                ours = share_by_network(successes(runs), runs["network"])
                rows.append(
                    {
                        "dataset": dataset,
                        "method": method,
                        "runs": len(runs),
                        "here": f"{100 * ours.value:.0f} %",
                        "interval": f"{100 * ours.low:.0f} to {100 * ours.high:.0f} %",
                        "published": f"{100 * said:.0f} %",
                        "agrees": ours.low - reading_error <= said <= ours.high + reading_error,
                    }
                )
    return pd.DataFrame(rows)


def from_store(study: Study, store: Store, *, command: str | None = None) -> list[Entry]:
    """The ledger of a study's stored records.

    ``claims.yaml`` says which parts are read.

    Args:
        study: the study.
        store: its records.
        command: that repeats the measurements; None for that of a study in ``studies``.
    """
    command = command or f"wdlg study run studies/{study.name}.yaml"
    cells: dict[str, list[Cell]] = {
        table: [cell for part in parts for cell in study.part(part)]
        for table, parts in rules()["parts"].items()
    }
    cells["rates"] = [cell for cell in study.cells if isinstance(cell, AttackCell) and cell.rate is not None]
    cells["labels"] = [cell for cell in study.cells if isinstance(cell, LabelCell)]
    tables = {table: store.read_all(found) for table, found in cells.items()}
    return ledger(Records(**tables), command=command, study=study.name)
