"""Why attacks fail, told apart by ``studies/causes.yaml``: the loss, its basin, or traps on the way.

- A loss **holds** the private image at a distance if attacks that start so near to it end with an MSE below
  0.01. From the smallest distance: is its minimum at the image at all?
- **Restarts**: how often each image comes back from several dummies, and at how many places the others end.
- Its **bias**: runs that fail although their loss is no higher than that of the private image prefer another
  image. All other runs that fail got stuck above it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from wdlg.study.cells import AttackCell, Cell
from wdlg.study.store import Store
from wdlg.verdicts.comparison import successes
from wdlg.verdicts.readings import network_of

SAME = 0.05
"""Two ends of one image are one place if their losses, and their MSEs, differ by no more than this share."""


def holding(cells: Iterable[Cell], store: Store) -> pd.DataFrame:
    """What each loss holds, from the cells that start near the private image.

    Of several optimisers the one that holds most counts, then the one with the lower median MSE, so that a
    leap of one is not taken for a property of the loss.

    Returns:
        A row for each network, reading and distance: network, reading, distance (standard deviation of the
        dummy around the image), runs, held (of them), median_mse and optimizer (of the better one).
    """
    groups = _groups(cells, lambda cell: cell.design.start_distance is not None)
    rows = []
    for (network, reading), members in groups.items():
        by_distance = defaultdict(list)
        for cell in members:
            table = store.read_all([cell])
            if len(table):
                median = float(table["mse"].fillna(np.inf).median())
                kept = int(successes(table).sum())
                name = type(cell.attack.optimizer).__name__
                by_distance[cell.design.start_distance].append((-kept, median, name, len(table)))
        for distance, found in sorted(by_distance.items()):
            kept, median, name, runs = min(found)
            rows.append((network, reading, distance, runs, -kept, median, name))
    columns = ["network", "reading", "distance", "runs", "held", "median_mse", "optimizer"]
    return pd.DataFrame(rows, columns=columns)


def restarts(cells: Iterable[Cell], store: Store) -> pd.DataFrame:
    """How often each image comes back from several dummies.

    Returns:
        A row for each network and reading: network, reading, images, starts (of each), recovered (runs),
        always and never (images), other_ends (median over the images that are not always recovered: places at
        which runs without success end).
    """
    rows = []
    for (network, reading), members in _groups(cells, lambda cell: cell.design.starts > 1).items():
        table = store.read_all(members)
        if not len(table):
            continue
        good = successes(table)
        shares = good.groupby([table["network"], table["image"]]).mean()
        ends = [
            _places(part[["loss", "mse"]].to_numpy(dtype=float))
            for _, part in table[~good].groupby(["network", "image"])
        ]
        rows.append(
            (
                *(network, reading, len(shares), len(table) // len(shares)),
                *(int(good.sum()), int((shares == 1).sum()), int((shares == 0).sum())),
                float(np.median(ends)) if ends else 0.0,
            )
        )
    columns = ["network", "reading", "images", "starts", "recovered", "always", "never", "other_ends"]
    return pd.DataFrame(rows, columns=columns)


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """For each method: runs, failed, and preferred (failed with a loss no higher than the private image's).

    Args:
        table: records with method, mse, loss and loss_at_truth.
    """
    failed = ~successes(table)
    below = failed & (table["loss"] <= table["loss_at_truth"])
    by = table["method"]
    return pd.DataFrame(
        {
            "runs": failed.groupby(by, sort=False).size(),
            "failed": failed.groupby(by, sort=False).sum(),
            "preferred": below.groupby(by, sort=False).sum(),
        }
    ).reset_index()


def _groups(
    cells: Iterable[Cell], wanted: Callable[[AttackCell], bool]
) -> dict[tuple[str, str], list[AttackCell]]:
    """The attack cells that are wanted, by network and reading."""
    found: dict[tuple[str, str], list[AttackCell]] = defaultdict(list)
    for cell in cells:
        if isinstance(cell, AttackCell) and wanted(cell):
            found[network_of(cell), cell.attack.name].append(cell)
    return found


def _places(ends: np.ndarray) -> int:
    """Different places among ends (runs, 2) of loss and MSE."""
    places: list[np.ndarray] = []
    for end in ends:
        if not any(np.allclose(end, place, rtol=SAME, atol=0, equal_nan=True) for place in places):
            places.append(end)
    return len(places)
