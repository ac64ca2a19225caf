"""The map of readings: where a reading of the transport loss wins, ties or loses against the squared one.

A place on the map is a reading, on a kind of network, under an optimiser. What decides is success alone (an
MSE below 0.01), paired case by case, with networks as units, on all data sets of the map together. Its
intervals are not corrected for the number of places: the map explores, and says where to look. Claims are
judged on other cases, by data set (:func:`comparisons`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from wdlg.study.cells import AttackCell, Cell
from wdlg.study.statistics import Paired
from wdlg.study.store import Store
from wdlg.verdicts.claims import rules
from wdlg.verdicts.comparison import NotMeasuredError, of_method, pooled, successes
from wdlg.verdicts.wording import title

OPPONENT = "squared (iDLG)"
"""What every reading is compared with."""

BETTER, TIES, WORSE = "better", "ties", "worse"
NONE_RECOVERS = "none recovers"
"""Neither the reading nor its opponent recovered an image: nothing can be told apart by success."""
TOO_FEW = "undecided"
VERDICTS = (BETTER, TIES, WORSE, NONE_RECOVERS, TOO_FEW)


@dataclass(frozen=True)
class Place:
    """A reading on a kind of network, under an optimiser.

    Attributes:
        network: activation and distribution of the initial weights, such as "relu, torch".
        optimizer: its name, such as "LBFGS".
        learning_rate: at which it ran.
        dataset: the data set; "" for all of the map together.
        reading: the method's name.
        runs, networks: how many.
        successes, explosions: of the runs.
        median_mse: of the runs; infinite where half of them have none.
        gain: its success against that of :data:`OPPONENT`, or None for the opponent itself.
        verdict: one of :data:`VERDICTS`.
    """

    network: str
    optimizer: str
    learning_rate: float
    reading: str
    runs: int
    networks: int
    successes: int
    explosions: int
    median_mse: float
    gain: Paired | None
    verdict: str
    dataset: str = ""

    def as_json(self) -> dict[str, Any]:
        """Numbers by name."""
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "dataset": self.dataset,
            "reading": self.reading,
            "verdict": self.verdict,
            "runs": self.runs,
            "networks": self.networks,
            "successes": self.successes,
            "explosions": self.explosions,
            "median_mse": self.median_mse,
            "gain": None if self.gain is None else self.gain.as_json(),
        }


def places(cells: Iterable[Cell], store: Store) -> list[Place]:
    """The map of the attack cells of a study that are stored, in the order of the cells."""
    groups: dict[tuple[str, str], list[AttackCell]] = defaultdict(list)
    for cell in cells:
        if isinstance(cell, AttackCell):
            groups[network_of(cell), type(cell.attack.optimizer).__name__].append(cell)
    found = []
    for (network, optimizer), members in groups.items():
        table = store.read_all(members)
        for reading in dict.fromkeys(cell.attack.name for cell in members):
            try:
                found.append(_place(network, optimizer, reading, table))
            except NotMeasuredError:
                continue
    return found


def comparisons(cells: Iterable[Cell], store: Store) -> list[Place]:
    """Each method beside the squared distance on each data set of each part, as far as they are stored.

    Methods of a part may have optimisers of their own.
    """
    groups: dict[tuple[str, str], list[AttackCell]] = defaultdict(list)
    for cell in cells:
        if isinstance(cell, AttackCell):
            groups[cell.part, cell.dataset].append(cell)
    found = []
    for (_, dataset), members in groups.items():
        table = store.read_all(members)
        for attack in {cell.attack.name: cell.attack for cell in members}.values():
            try:
                one = _place(network_of(members[0]), type(attack.optimizer).__name__, attack.name, table)
            except NotMeasuredError:
                continue
            found.append(replace(one, dataset=dataset))
    return found


def network_of(cell: AttackCell) -> str:
    """Activation and distribution of the initial weights of a cell's networks, such as "relu, torch"."""
    form = cell.design.architecture
    return f"{form.activation(cell.design.activation)}, {form.initial(cell.design.initial)}"


def _place(network: str, optimizer: str, reading: str, table: pd.DataFrame) -> Place:
    rows = of_method(table, reading)
    units = rows.groupby(["dataset", "network"]).ngroups
    gain = None
    verdict = TIES
    if reading != OPPONENT:
        gain = pooled(table, "success", reading, OPPONENT)
        both = successes(rows).any() or successes(of_method(table, OPPONENT)).any()
        verdict = _verdict(gain, recovers=bool(both))
    return Place(
        network=network,
        optimizer=optimizer,
        learning_rate=float(rows["learning_rate"].iloc[0]),
        reading=reading,
        runs=len(rows),
        networks=units,
        successes=int(successes(rows).sum()),
        explosions=int(rows["exploded"].sum()),
        median_mse=float(rows["mse"].fillna(float("inf")).median()),
        gain=gain,
        verdict=verdict,
    )


def _verdict(gain: Paired, *, recovers: bool) -> str:
    """What an interval over networks says; few networks decide nothing."""
    if gain.networks < rules()["fewest_networks"]:
        return TOO_FEW
    if not recovers:
        return NONE_RECOVERS
    return BETTER if gain.low > 0 else WORSE if gain.high < 0 else TIES


def as_table(found: Iterable[Place]) -> pd.DataFrame:
    """Places as a table for a page, a row for each; with their data sets, where they have one."""
    found = list(found)
    columns = ["network", "optimiser", "reading", "learning rate", "runs", "recovered", "exploded"]
    rows = [
        (
            *(place.network, place.optimizer, place.reading, place.learning_rate, place.runs),
            *(place.successes, place.explosions, place.median_mse),
            "" if place.gain is None else place.gain.text(),
            place.verdict,
        )
        for place in found
    ]
    table = pd.DataFrame(rows, columns=[*columns, "median MSE", "gain in success", "verdict"])
    if any(place.dataset for place in found):
        table.insert(1, "data set", [title(place.dataset) for place in found])
    return table


def in_words(found: list[Place], readings: Iterable[str]) -> str:
    """For some readings in how many places each verdict stands: "worse in 12, ties in 3 of 15 places"."""
    chosen = [one.verdict for one in found if one.reading in set(readings)]
    if not chosen:
        return "not measured"
    counts = [f"{verdict} in {chosen.count(verdict)}" for verdict in VERDICTS if verdict in chosen]
    return f"{', '.join(counts)} of {len(chosen)} places"


def against(found: Iterable[Place], reading: str) -> str:
    """Images that a reading recovers and that the squared distance does on the same cases, in words.

    Args:
        found: of :func:`comparisons`, of one part.
        reading: its name.

    Returns:
        Such as "31 of 100 against 18 of 100 (MNIST), 17 of 100 against 10 of 100 (Fashion-MNIST)".
    """
    counts = {(place.dataset, place.reading): f"{place.successes} of {place.runs}" for place in found}
    said = [
        f"{count} against {counts[dataset, OPPONENT]} ({title(dataset)})"
        for (dataset, name), count in counts.items()
        if name == reading and (dataset, OPPONENT) in counts
    ]
    return ", ".join(said) or "not measured"
