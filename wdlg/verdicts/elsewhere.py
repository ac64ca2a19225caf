"""The tests of the claims elsewhere: on other networks, with other optimisers, for other readings.

The paper's text assumes ReLU, and leaves out its eps, its optimiser's settings and its networks' weights. So
a claim that names WDLG is judged again, by the same test, for every *variant*: a part of a study (one kind
of network) and a reading of the loss, which takes the place of WDLG. What the ledger's own verdict speaks of,
the study's main part, is the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wdlg.study.cells import AttackCell, Study
from wdlg.study.store import Store
from wdlg.verdicts.claims import UNDECIDED
from wdlg.verdicts.readings import OPPONENT, network_of
from wdlg.verdicts.result import Records, Result
from wdlg.verdicts.wording import words

OURS = {OPPONENT: "iDLG"}
"""What a method of a map is called in the tests, beside DLG, which keeps its name."""

PLAIN = "rows, eps 0.1 absolute"
"""The reading that WDLG stands for in the main part of the study of the paper."""


@dataclass(frozen=True)
class Variant:
    """A reading in the place of WDLG, on a kind of network, under an optimiser.

    Attributes:
        study, part: whose records they are.
        network: activation and distribution of the initial weights, such as "relu, torch".
        optimizer: of the reading, such as "LBFGS".
        against: the optimisers of DLG and of the squared distance, where they are others.
        reading: the method's name in its study.
        records: of the attacks, in which the reading is called WDLG, and the squared distance iDLG.
    """

    study: str
    part: str
    network: str
    optimizer: str
    reading: str
    records: Records
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """What the test of a claim says of one variant."""

    variant: Variant
    result: Result

    def as_json(self) -> dict[str, Any]:
        """Names, verdict and numbers."""
        return {
            "study": self.variant.study,
            "part": self.variant.part,
            "network": self.variant.network,
            "optimizer": self.variant.optimizer,
            "reading": self.variant.reading,
            "verdict": self.result.verdict,
            "condition": self.result.condition,
            "summary": self.result.summary,
            "numbers": dict(self.result.numbers),
        }


def variants(study: Study, store: Store) -> list[Variant]:
    """The variants of a study: every reading of each part that has the squared distance beside readings.

    Parts without records are left out, and so are methods that are no reading of the transport loss.
    """
    found = []
    parts: dict[str, list[AttackCell]] = {}
    for cell in study.cells:
        if isinstance(cell, AttackCell):
            parts.setdefault(cell.part, []).append(cell)
    for part, cells in parts.items():
        optimizers = {cell.attack.name: type(cell.attack.optimizer).__name__ for cell in cells}
        readings = [name for name in optimizers if name.startswith(("rows", "kernels"))]
        if OPPONENT not in optimizers or not readings:
            continue
        table = store.read_all(cells)
        for name in readings:
            if len(table) and (table["method"] == name).any():
                found.append(
                    Variant(
                        study=study.name,
                        part=part,
                        network=network_of(cells[0]),
                        optimizer=optimizers[name],
                        against=_others(optimizers[name], optimizers),
                        reading=name,
                        records=Records(attacks=_in_the_place_of_wdlg(table, name)),
                    )
                )
    return found


def main_variant(study: Study, cells: Iterable[Any], table: pd.DataFrame) -> list[Variant]:
    """The study's own WDLG as a variant, if it has one: what the ledger's verdicts are about."""
    own = [cell for cell in cells if isinstance(cell, AttackCell) and cell.attack.name == "WDLG"]
    if not own or not len(table):
        return []
    return [
        Variant(
            study=study.name,
            part=own[0].part,
            network=network_of(own[0]),
            optimizer=type(own[0].attack.optimizer).__name__,
            reading=PLAIN,
            records=Records(attacks=table),
        )
    ]


def incomparable(variant: Variant) -> Result:
    """What a test of counts of iterations says of methods that do not have one optimiser: nothing.

    An iteration of L-BFGS is up to 20 gradient evaluations, one of Adam is one.
    """
    theirs = words(list(variant.against))
    return Result(
        UNDECIDED, "not comparable", f"the opponents run under {theirs}, of which an iteration is other work"
    )


def as_table(claims: Iterable[tuple[str, Iterable[Judged]]]) -> pd.DataFrame:
    """Verdicts by claim, network and optimiser, each with the readings that it is of: a table for a page.

    Args:
        claims: each claim in words, with what its test says of the variants.
    """
    places: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for claim, judged in claims:
        for one in judged:
            found = places.setdefault((claim, one.variant.network, one.variant.optimizer), {})
            verdict = f"{one.result.verdict}: {one.result.condition}".removesuffix(": ")
            found.setdefault(verdict, []).append(one.variant.reading)
    return pd.DataFrame(
        [
            {
                "Claim": claim,
                "Network": network,
                "Optimiser": optimizer,
                "Verdict": verdict,
                "Readings": "; ".join(readings),
            }
            for (claim, network, optimizer), verdicts in places.items()
            for verdict, readings in verdicts.items()
        ],
        columns=["Claim", "Network", "Optimiser", "Verdict", "Readings"],
    )


def in_words(judged: Iterable[Judged]) -> str:
    """How often each verdict stands: "not reproduced in 12, undecided in 3 of 15 variants"."""
    said = [one.result.verdict for one in judged]
    counts = [f"{verdict} in {said.count(verdict)}" for verdict in dict.fromkeys(said)]
    return f"{', '.join(counts)} of {len(said)} variants" if said else "not measured elsewhere"


def _others(own: str, optimizers: Mapping[str, str]) -> tuple[str, ...]:
    """The optimisers of the opponents that are not the reading's own."""
    theirs = [optimizers[name] for name in ("DLG", OPPONENT) if name in optimizers]
    return tuple(dict.fromkeys(one for one in theirs if one != own))


def _in_the_place_of_wdlg(table: pd.DataFrame, reading: str) -> pd.DataFrame:
    """The rows of DLG, of the squared distance and of one reading, by the names that the tests use."""
    rows = table[table["method"].isin(["DLG", OPPONENT, reading])]
    return rows.assign(method=rows["method"].astype(str).replace({**OURS, reading: "WDLG"}))
