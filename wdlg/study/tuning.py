"""Which learning rate suits a method: one rule for all, so that none is tuned harder than another."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from wdlg.errors import InputError
from wdlg.evaluation import recovered
from wdlg.study.cells import AttackCell, Study
from wdlg.study.store import State, Store

if TYPE_CHECKING:
    import pandas as pd


def ranking(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """What was tried, best first.

    First is what recovered most images; of equals, what exploded less often; of these, what has the lower
    median MSE (an MSE that is no number counts as infinite); of these, the smaller learning rate.

    Args:
        records: of attacks, with columns mse, exploded and learning_rate.
        by: columns that tell apart what was tried.

    Returns:
        A row for each: ``by``, attacks, successes, explosions, median_mse.
    """
    runs = records.assign(
        success=recovered(records["mse"]), counted_mse=records["mse"].fillna(np.inf)
    ).groupby(by, sort=True)
    table = runs.agg(
        attacks=("mse", "size"),
        successes=("success", "sum"),
        explosions=("exploded", "sum"),
        median_mse=("counted_mse", "median"),
    ).reset_index()
    keys = ["successes", "explosions", "median_mse", *(["learning_rate"] if "learning_rate" in by else [])]
    return table.sort_values(keys, ascending=[False, *[True] * (len(keys) - 1)], kind="stable").reset_index(
        drop=True
    )


def best_rates(records: pd.DataFrame) -> pd.DataFrame:
    """The learning rate of each method in each part, the first of its :func:`ranking` over all data sets.

    Returns:
        A row for each part and method: part, method, learning_rate, attacks, successes, explosions,
        median_mse.
    """
    ranked = ranking(records, ["part", "method", "learning_rate"])
    return (
        ranked.groupby(["part", "method"], sort=True)
        .head(1)
        .sort_values(["part", "method"], ignore_index=True)
    )


def tuned(study: Study, store: Store) -> tuple[pd.DataFrame, int]:
    """:func:`best_rates` of the parts of a study that try several rates.

    A method is compared with itself only when all its cells of a part are there.

    Returns:
        The table in the order of the study, and how many methods are left out.

    Raises:
        InputError: no part of the study tries several learning rates for a method.
    """
    cells: dict[tuple[str, str], list[AttackCell]] = defaultdict(list)
    for cell in study.cells:
        if isinstance(cell, AttackCell) and cell.rate is not None:
            cells[cell.part, cell.attack.name].append(cell)
    cells = {group: found for group, found in cells.items() if len({cell.rate for cell in found}) > 1}
    if not cells:
        raise InputError(f"the study {study.name} has no part that tries several learning rates.")
    whole = [found for found in cells.values() if all(store.held(cell).state is State.DONE for cell in found)]
    left_out = len(cells) - len(whole)
    if not whole:
        raise InputError(f"{str(store.folder)!r} has no method of which all learning rates are computed.")
    table = best_rates(store.read_all([cell for found in whole for cell in found]))
    order = {group: place for place, group in enumerate(cells)}
    places = [order[part, method] for part, method in zip(table["part"], table["method"], strict=True)]
    return table.iloc[np.argsort(places)].reset_index(drop=True), left_out
