"""The claims ledger: a verdict for each claim of the paper. It is computed, and nothing is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from wdlg import project
from wdlg.evaluation import SUCCESS
from wdlg.study.cells import AttackCell, Cell, LabelCell, Study
from wdlg.study.specification import load
from wdlg.study.statistics import share_by_network
from wdlg.study.store import Store
from wdlg.verdicts.claims import UNDECIDED, rules
from wdlg.verdicts.comparison import ALL, NotMeasuredError, compare_overall, successes
from wdlg.verdicts.elsewhere import Judged, Variant, incomparable, main_variant, variants
from wdlg.verdicts.measures import MEASURES, Records, Result


@dataclass(frozen=True)
class Past:
    """A test that was changed, with its verdict, as in ``claims.yaml`` under "history".

    Attributes:
        written, until: the days on which it was written and changed.
        test, reason: what it was, and why it was changed.
        verdict, condition: what it says.
        computed: True if its measure is still there and said so of the same records; False if the verdict is
            what the ledger of then said, by statistics that are no more in use.
    """

    written: str
    until: str
    test: str
    reason: str
    verdict: str
    condition: str
    computed: bool

    def text(self) -> str:
        """As text: "Until 1 January 2026: reproduced. The reason of the change."."""
        return f"Until {self.until}: {_with_condition(self.verdict, self.condition)}. {self.reason}"


@dataclass(frozen=True)
class Moved:
    """The verdict of a test with another value of one of its settings.

    Attributes:
        setting, value: which setting, and its value.
        usual: True if it is the value that decides.
        verdict, condition: what the test then says.
    """

    setting: str
    value: float
    usual: bool
    verdict: str
    condition: str


@dataclass(frozen=True)
class Entry:
    """A claim with its verdict.

    Attributes:
        id, section, claim, test: as in ``claims.yaml``.
        published: what the paper's text says in numbers, and what is missing from it.
        written: the day on which the test was written.
        known: what was known when it was written, if anything.
        figure: the page with the figure.
        command: what repeats the numbers.
        result: the verdict and its numbers.
        history: the tests that decided before, the oldest first.
        moved: the verdict with other thresholds, where that was asked for.
        by: the verdict of the same test on other networks, under other optimisers and for other readings,
            where the claim is about the loss and there are records.
    """

    id: str
    section: str
    claim: str
    test: str
    published: str
    written: str
    known: str
    figure: str
    command: str
    result: Result
    history: tuple[Past, ...] = ()
    moved: tuple[Moved, ...] = ()
    by: tuple[Judged, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For ``wdlg study report --json``."""
        return {
            "id": self.id,
            "claim": self.claim,
            "section": self.section,
            "published": self.published,
            "test": self.test,
            "written": self.written,
            "known": self.known,
            "verdict": self.result.verdict,
            "condition": self.result.condition,
            "history": [asdict(one) for one in self.history],
            "by_threshold": [asdict(one) for one in self.moved],
            "by": [one.as_json() for one in self.by],
            "summary": self.result.summary,
            "numbers": dict(self.result.numbers),
            "interval": None if self.result.interval is None else list(self.result.interval),
            "figure": self.figure,
            "command": self.command,
        }


def ledger(
    records: Records,
    *,
    command: str,
    study: str = "",
    thresholds: bool = False,
    others: Sequence[Variant] = (),
) -> list[Entry]:
    """The verdict of every claim.

    Args:
        records: what to judge. A claim that they say nothing about is undecided.
        command: what repeats them.
        study: whose records they are; what a ledger of earlier days said is shown beside that of the same
            study only.
        thresholds: judge with other thresholds, too, which takes twice as long.
        others: variants for which the claims about the loss are judged again.
    """
    entries = []
    for claim in rules()["claims"]:
        texts = {name: claim[name] for name in ("id", "section", "claim", "test", "written", "figure")}
        entries.append(
            Entry(
                **texts,
                published=claim.get("published", ""),
                known=claim.get("known", ""),
                command=command,
                result=judge(records, claim["measure"], claim.get("settings", {})),
                history=tuple(_history(records, claim, study)),
                moved=tuple(_moved(records, claim)) if thresholds else (),
                by=tuple(_elsewhere(others, claim)),
            )
        )
    return entries


def judge(records: Records, measure: str, settings: Mapping[str, Any]) -> Result:
    """What a measure says of records; undecided where they say nothing about it.

    Args:
        records: what to judge.
        measure: a name in ``MEASURES``.
        settings: of the measure, as in ``claims.yaml``.
    """
    try:
        return MEASURES[measure](records, **settings)
    except NotMeasuredError as error:
        return Result(UNDECIDED, "not measured here", condition=str(error))


def _history(records: Records, claim: Mapping[str, Any], study: str) -> Iterator[Past]:
    """The earlier tests of a claim, with what their measures say of the records, or what was said then."""
    for past in claim.get("history", []):
        texts = {name: past[name] for name in ("written", "until", "test", "reason")}
        if "measure" in past:
            result = judge(records, past["measure"], past["settings"])
            yield Past(**texts, verdict=result.verdict, condition=result.condition, computed=True)
        elif past["study"] == study:
            yield Past(**texts, verdict=past["verdict"], condition=past["condition"], computed=False)


def _moved(records: Records, claim: Mapping[str, Any]) -> Iterator[Moved]:
    """The verdicts of a test at the values that ``claims.yaml`` gives under "vary"."""
    settings = claim.get("settings", {})
    for name, values in claim.get("vary", {}).items():
        usual = settings.get(name, SUCCESS if name == "success" else None)
        for value in values:
            result = judge(records, claim["measure"], {**settings, name: value})
            yield Moved(name, value, value == usual, result.verdict, result.condition)


def _elsewhere(others: Sequence[Variant], claim: Mapping[str, Any]) -> Iterator[Judged]:
    """What the test of a claim says of variants, where ``claims.yaml`` says that it is about the loss."""
    said = claim.get("elsewhere", False)
    for variant in others if said else ():
        if said == "in iterations" and variant.against:
            yield Judged(variant, incomparable(variant))
        else:
            yield Judged(variant, judge(variant.records, claim["measure"], claim["settings"]))


def as_table(entries: list[Entry]) -> pd.DataFrame:
    """The ledger as a table for a page; changed tests have their day, and :func:`history_table` the rest."""
    verdicts = []
    for entry in entries:
        verdict = _with_condition(entry.result.verdict, entry.result.condition)
        changed = f" (test changed on {entry.history[-1].until})" if entry.history else ""
        verdicts.append(verdict + changed)
    return pd.DataFrame(
        {
            "Claim": [entry.claim for entry in entries],
            "Section": [entry.section for entry in entries],
            "Published": [entry.published for entry in entries],
            "Test": [f"{entry.test} ({entry.written})" for entry in entries],
            "Verdict": verdicts,
            "Numbers": [entry.result.summary for entry in entries],
        }
    )


def history_table(entries: list[Entry]) -> pd.DataFrame:
    """Tests that were changed beside those that decide now, with what was known: a table for a page."""
    rows = []
    for entry in entries:
        now = _with_condition(entry.result.verdict, entry.result.condition)
        for past in entry.history:
            before = _with_condition(past.verdict, past.condition)
            rows.append((entry.claim, past.written, past.until, past.test, before, past.reason))
        if entry.history:
            rows.append((entry.claim, entry.written, "", entry.test, now, f"Known: {entry.known}"))
    return pd.DataFrame(rows, columns=["Claim", "Written", "Until", "Test", "Verdict", "Why"])


def threshold_table(entries: list[Entry]) -> pd.DataFrame:
    """How each verdict moves with its threshold: a table for a page.

    Args:
        entries: of a ledger with thresholds.

    Returns:
        One row for each claim, setting and value, with the columns Claim, Setting, Value (the one that
        decides has a star) and Verdict.
    """
    return pd.DataFrame(
        [
            {
                "Claim": entry.claim,
                "Setting": one.setting.replace("_", " "),
                "Value": f"{one.value:g}{'*' if one.usual else ''}",
                "Verdict": _with_condition(one.verdict, one.condition),
            }
            for entry in entries
            for one in entry.moved
        ],
        columns=["Claim", "Setting", "Value", "Verdict"],
    )


def _with_condition(verdict: str, condition: str) -> str:
    return f"{verdict}: {condition}" if condition else verdict


def gain_table(attacks: pd.DataFrame, method: str, opponent: str) -> pd.DataFrame:
    """Paired gain of one method over another, for each data set and for all together: one family of tests.

    Returns:
        Columns dataset, networks, cases, and for success and explosions avoided the mean gain with its
        interval and a star if it is significant after Holm's correction for all tests of the table, and the
        p-value of the sign-flip test over networks before correction.
    """
    both = attacks[attacks["method"].isin([method, opponent])]
    counts = both.groupby("dataset", sort=False)["method"].nunique()
    both = both[both["dataset"].isin(counts.index[counts == 2])]
    if not len(both):
        raise NotMeasuredError(f"there are no records of {method} beside {opponent}")
    family = compare_overall(both, ("success", "calm"), method, opponent)
    rows = []
    for name in (*dict.fromkeys(both["dataset"].astype(str)), ALL):
        results = {score: family[score, name] for score in ("success", "calm")}
        row: dict[str, object] = {
            "dataset": "all together" if name == ALL else name,
            "networks": results["success"].networks,
            "cases": results["success"].paired.cases,
        }
        success, calm = results["success"], results["calm"]
        row |= {"gain in success": success.text(), "p (success)": f"{success.paired.p:.2g}"}
        row |= {"explosions avoided": calm.text(), "p (explosions)": f"{calm.paired.p:.2g}"}
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


def _own(study: str) -> dict[str, pd.DataFrame]:
    """The tables that ``claims.yaml`` names under "own" for a study, of what the project has of them."""
    tables = {}
    for table, name in rules()["own"].get(study, {}).items():
        if name.endswith(".json"):
            rows = project.locate("benchmarks", name)
            if rows is not None:
                tables[table] = pd.DataFrame(json.loads(rows.read_text(encoding="utf-8")))
        else:
            for planned, store in _studies([name]):
                tables[table] = store.read_all(planned.cells)
    return tables


def beside(study: str) -> list[tuple[Study, Store]]:
    """The project's studies that ``claims.yaml`` names beside one, with their records, if there are any."""
    return list(_studies(rules()["beside"].get(study, [])))


def _studies(names: Iterable[str]) -> Iterator[tuple[Study, Store]]:
    """Of the project's studies by these names those that have records."""
    for name in names:
        file, records = project.locate("studies", f"{name}.yaml"), project.locate("results", name)
        if file is not None and records is not None:
            yield load(str(file)), Store(records)


def from_store(
    study: Study,
    store: Store,
    *,
    command: str | None = None,
    thresholds: bool = False,
    beside: Sequence[tuple[Study, Store]] = (),
) -> list[Entry]:
    """The ledger of a study's stored records.

    ``claims.yaml`` says which parts are read.

    Args:
        study: the study.
        store: its records.
        command: that repeats the measurements; None for that of a study in ``studies``.
        thresholds: judge with other thresholds, too, see :func:`ledger`.
        beside: other studies and their records, whose variants are judged by the same tests, see
            :func:`beside`.
    """
    command = command or f"wdlg study run studies/{study.name}.yaml"
    cells: dict[str, list[Cell]] = {
        table: [cell for part in parts for cell in study.part(part)]
        for table, parts in rules()["parts"].items()
    }
    cells["labels"] = [cell for cell in study.cells if isinstance(cell, LabelCell)]
    tables = {table: store.read_all(found) for table, found in cells.items()}
    rates: dict[int, list[Cell]] = {}
    for cell in study.cells:
        if isinstance(cell, AttackCell) and cell.rate is not None:
            rates.setdefault(cell.attack.evaluations, []).append(cell)
    budgets = [store.read_all(found).assign(budget=budget) for budget, found in rates.items()]
    tables |= _own(study.name)
    tables["rates"] = pd.concat([one for one in budgets if len(one)] or [pd.DataFrame()], ignore_index=True)
    others = [variant for one in ((study, store), *beside) for variant in variants(*one)]
    if others:
        others = main_variant(study, cells["attacks"], tables["attacks"]) + others
    return ledger(Records(**tables), command=command, study=study.name, thresholds=thresholds, others=others)
