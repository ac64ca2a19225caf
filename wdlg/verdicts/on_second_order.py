"""The measures that decide our own claims on second-order attacks and on the closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from wdlg.study.statistics import share as share_of
from wdlg.verdicts.claims import rules
from wdlg.verdicts.comparison import NotMeasuredError, some
from wdlg.verdicts.result import Records, Result
from wdlg.verdicts.wording import Lack, settle, share_in, title, titles, values, words


def recovers_nearly_all(
    records: Records,
    *,
    table: str,
    parts: Sequence[str],
    runs: int,
    mse: float,
    share: float,
    iterations: int,
) -> Result:
    """Does an attack recover nearly every image of each data set, in few iterations, and never explode?

    Args:
        records: with a table of this name.
        table: a field of :class:`Records`.
        parts: of its study that are read.
        runs: that each data set must have.
        mse: below which an image counts as recovered.
        share: of the runs that are to be recovered.
        iterations: the most in the median.
    """
    rows = _of_parts(records, table, parts)
    datasets = rules()["datasets"]
    shares, kept, told, few = {}, [], [], []
    for name in datasets:
        own = rows[rows["dataset"] == name]
        if not len(own):
            continue
        recovered, exploded = int((own["mse"] < mse).sum()), int(own["exploded"].sum())
        median = float(own["iterations"].median())
        shares[name] = share_in(own, own["mse"] < mse)
        if len(own) < runs:
            few.append(f"{len(own)} of at least {runs} runs on {title(name)}")
        elif recovered >= share * len(own) and median <= iterations and not exploded:
            kept.append(name)
        told.append(f"{title(name)} {recovered} of {len(own)}, {median:g} iterations, {exploded} exploded")
    lacking = Lack(tuple(name for name in datasets if name not in shares), other=tuple(few))
    verdict, condition = settle(len(kept) == len(datasets), [f"on {titles(kept)}"] if kept else [], lacking)
    found = int((rows["mse"] < mse).sum())
    return Result(
        verdict,
        "; ".join(told),
        condition,
        values(shares),
        headline=f"{found} of {len(rows)} runs below {mse:.0e}".replace("e-0", "e-"),
    )


def recovers_with(
    records: Records, *, table: str, parts: Mapping[str, float], runs: int, mse: float
) -> Result:
    """Does an attack recover enough images with each kind of network?

    Args:
        records: with a table of this name.
        table: a field of :class:`Records`.
        parts: of its study ("initial-" and the activation of its networks) or benchmark, with the share of
            runs that are to be recovered.
        runs: that each part must have.
        mse: below which an image counts as recovered.
    """
    rows = _of_parts(records, table, list(parts))
    shares, kept, told, missing = {}, [], [], []
    for part, least in parts.items():
        own, name = rows[rows["part"] == part], part.removeprefix("initial-")
        if len(own) < runs:
            missing.append(f"{len(own)} of {runs} runs with {name}")
        if not len(own):
            continue
        recovered = int((own["mse"] < mse).sum())
        shares[name] = share_in(own, own["mse"] < mse)
        if recovered >= least * len(own) and len(own) >= runs:
            kept.append(name)
        told.append(f"{name} {recovered} of {len(own)} (asked: {100 * least:g} %)")
    verdict, condition = settle(
        len(kept) == len(parts), [f"with {words(kept)}"] if kept else [], Lack(other=tuple(missing))
    )
    return Result(verdict, ", ".join(told), condition, values(shares), headline=", ".join(told))


def closed_form(
    records: Records,
    *,
    activation: str,
    initial: str,
    images: Mapping[str, int],
    below: str,
    share: float,
) -> Result:
    """Does the closed form recover the images, and never a wrong one that it takes for right?

    Args:
        records: with rows of ``benchmarks/exact.json``, gradients in single precision.
        activation, initial: of the networks.
        images: how many are asked for, by data set; each has a network of its own.
        below: the column with the images that count as recovered, "below 1e-6" or "below 1e-4".
        share: of the images that are to be recovered.
    """
    rows = some(records.closed_form, "the closed form")
    chosen = (
        (rows["activation"] == activation) & (rows["initial"] == initial) & (rows["precision"] == "float32")
    )
    measured = {str(row["dataset"]): row for row in rows[chosen].to_dict("records")}
    present = [name for name in images if name in measured]
    if not present:
        raise NotMeasuredError(f"the closed form was not measured with {activation} and {initial} weights")
    shares, kept, told, few = {}, [], [], []
    for name in present:
        of, found = int(measured[name]["images"]), int(measured[name][below])
        wrong = int(measured[name]["converged and not below 1e-4"])
        shares[name] = share_of(found, of)
        if of < images[name]:
            few.append(f"{of} of at least {images[name]} images on {title(name)}")
        elif found >= share * of and not wrong:
            kept.append(name)
        told.append(f"{title(name)} {found} of {of} {below}, {wrong} wrong and taken for right")
    lacking = Lack(tuple(name for name in images if name not in measured), other=tuple(few))
    verdict, condition = settle(len(kept) == len(images), [f"on {titles(kept)}"] if kept else [], lacking)
    recovered, of = (sum(int(measured[name][one]) for name in present) for one in (below, "images"))
    return Result(
        verdict, "; ".join(told), condition, values(shares), headline=f"{recovered} of {of} images {below}"
    )


def _of_parts(records: Records, table: str, parts: Sequence[str]) -> pd.DataFrame:
    rows = some(getattr(records, table), f"the study {table.replace('_', '-')}")
    rows = rows[rows["part"].isin(parts)]
    if not len(rows):
        raise NotMeasuredError(f"there are no records of {words(list(parts))}")
    return rows
