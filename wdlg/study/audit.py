"""Recompute a random few of the stored attacks, and say whether they agree.

An attack is computed alone here and in a batch there, perhaps on another machine, so the last digits differ
from the first evaluation on, and a trajectory of L-BFGS multiplies such differences. What can agree is
therefore stated, not hidden, in :data:`TOLERANCES`: the start to many digits, an analytic label exactly,
success or failure, and for a success how it ended and its size. How a failure ended, and whether it exploded
on its way, is a matter of rounding. So is what follows an explosion, even of the first step: gradient descent
at a learning rate of 100 leaves the images' range by thousands at once, and its next losses differ by half
between an attack alone and the same attack in a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from wdlg import data
from wdlg.errors import InputError, require_count
from wdlg.evaluation import EXPLOSION, SUCCESS_THRESHOLDS, recovered
from wdlg.study.cells import AttackCell, Study
from wdlg.study.runner import compute
from wdlg.study.store import State, Store

START = 5
"""Evaluations at the start that must agree closely."""


@dataclass(frozen=True)
class Tolerances:
    """What may differ between a record and its recomputation.

    Attributes:
        start: relative difference of loss and MSE in the first evaluations, before an explosion.
        explosion: the same at the evaluation that explodes, the last that is compared. (Measured: up to 0.06
            at a learning rate of 1,000, below 0.004 at 100.)
        evaluations: relative difference of the number of evaluations, for runs with success on both sides.
        mse: factor between the last MSEs, for the same runs.
        late: share of the attacks that rounding may carry to another end. An audit draws few attacks, so it
            asks whether more of them differ after their start than chance explains at this share.
        level: of that test. At 0.15 and 0.01: 2 of 3 are chance, 3 of 3 are not; 7 of 20 are, 8 are not.
    """

    start: float = 0.01
    explosion: float = 0.1
    evaluations: float = 0.25
    mse: float = 3.0
    late: float = 0.15
    level: float = 0.01


TOLERANCES = Tolerances()


@dataclass(frozen=True)
class Finding:
    """One attack, recomputed.

    Attributes:
        attack: part/dataset/method/network/case.
        verdict: "agrees", "differs late" (after a start that agrees) or "differs".
        detail: what differs, in words; empty if nothing does.
        stored, found: label, status, evaluations and MSE on both sides.
    """

    attack: str
    verdict: str
    detail: str
    stored: dict[str, Any]
    found: dict[str, Any]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        findings: one for each recomputed attack.
        bad_files: files that cannot be read, were changed, or belong to other settings, with the reason.
    """

    findings: tuple[Finding, ...]
    bad_files: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if no file is bad, no attack differs from its start, and few enough differ late.

        Few enough are as many as chance explains: one-sided binomial test of :attr:`Tolerances.late` at
        :attr:`Tolerances.level`.
        """
        from scipy.stats import binom

        verdicts = [finding.verdict for finding in self.findings]
        late = verdicts.count("differs late")
        by_chance = binom.sf(late - 1, len(verdicts), TOLERANCES.late)
        return not self.bad_files and "differs" not in verdicts and bool(by_chance >= TOLERANCES.level)


def audit(
    study: Study,
    store: Store,
    *,
    attacks: int,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    progress: bool = False,
) -> Audit:
    """Check every file's digest, whatever the store remembers of it, then recompute some attacks.

    Args:
        study, store: whose records.
        attacks: how many are drawn, all equally likely; fewer if fewer are stored.
        seed: of the draw; None draws anew each time.
        data_dir: folder of the sample files.
        progress: show a bar.

    Raises:
        InputError: the store is not one of this study, or holds no attack of it whose data set is present.
    """
    require_count("--attacks", attacks)
    store.require_of(study)
    states = {cell.path: store.held(cell, in_full=True).state for cell in study.cells}
    bad = [
        f"{path} {state.value}" for path, state in states.items() if state not in (State.DONE, State.MISSING)
    ]
    stored = [
        (cell, number)
        for cell in study.cells
        if isinstance(cell, AttackCell)
        and states[cell.path] is State.DONE
        and data.is_present(cell.dataset, data_dir)
        for number in range(cell.attacks)
    ]
    if not stored:
        raise InputError(
            f"--store is {str(store.folder)!r}, but must hold attacks of the study whose data are there."
        )
    chosen = np.random.default_rng(seed).permutation(len(stored))[:attacks]
    by_cell: dict[AttackCell, list[int]] = defaultdict(list)
    for place in sorted(chosen):
        cell, number = stored[place]
        by_cell[cell].append(number)
    findings = []
    with tqdm(total=len(chosen), desc="audit", unit="attack", disable=not progress) as bar:
        for cell, numbers in by_cell.items():
            records = store.read(cell)
            sample = data.load(cell.dataset, data_dir)
            if sample.digest() != store.metadata(cell)["sample"]:
                raise InputError(
                    f"--data-dir holds other images of {cell.dataset} than {cell.path} was made of."
                )
            for number in numbers:
                # Alone, so that an audit of few attacks costs no more than these.
                found = compute(cell, sample, only=[number]).iloc[0]
                name = f"{cell.path.with_suffix('')}/{number}"
                joint = cell.attack.label_rule.joint
                findings.append(compare(name, records.iloc[number], found, joint=joint))
                bar.update()
    return Audit(tuple(findings), tuple(bad))


def compare(attack: str, stored: pd.Series, found: pd.Series, *, joint: bool) -> Finding:
    """A stored row and its recomputation, within :data:`TOLERANCES`.

    Args:
        attack: its name.
        stored, found: rows of :func:`~wdlg.study.runner.compute`.
        joint: the label was optimised, so that it belongs to the end of the run.
    """
    shown = ("label_recovered", "status", "evaluations", "mse")
    sides = [{name: side[name] for name in shown} for side in (stored, found)]
    fixed = ("case", "image", "label_true") if joint else ("case", "image", "label_true", "label_recovered")
    early = _contradictions(stored) + _different(fixed, stored, found) + _early_differences(stored, found)
    late = [] if early else _late_differences(stored, found)
    verdict = "differs" if early else "differs late" if late else "agrees"
    return Finding(attack, verdict, "; ".join(early + late), *sides)


def _contradictions(stored: pd.Series) -> list[str]:
    """Where a record does not agree with itself: its summary is that of its own trace."""
    if not len(stored["trace_mse"]):
        return []
    wrong = []
    for name in ("mse", "loss"):
        end = stored[f"trace_{name}"][-1]
        if not np.isclose(end, stored[name], rtol=1e-4, atol=0, equal_nan=True):
            wrong.append(f"{name} is {stored[name]:g}, but its own trace ends at {end:g}")
    if stored["trace_evaluation"][-1] + 1 != stored["evaluations"]:
        wrong.append(f"evaluations are {stored['evaluations']}, but its own trace ends elsewhere")
    if stored["label_correct"] != (stored["label_true"] == stored["label_recovered"]):
        wrong.append("label_correct does not fit its labels")
    for bound in SUCCESS_THRESHOLDS:
        if stored[f"below_{bound:g}"] != (stored["mse"] < bound):
            wrong.append(f"below_{bound:g} does not fit its mse")
    return wrong


def _different(names: Iterable[str], stored: pd.Series, found: pd.Series) -> list[str]:
    return [
        f"{name} is {stored[name]}, recomputed {found[name]}" for name in names if stored[name] != found[name]
    ]


def _early_differences(stored: pd.Series, found: pd.Series) -> list[str]:
    """Differences that rounding cannot explain."""
    differences = []
    length = min(START, len(stored["trace_evaluation"]), len(found["trace_evaluation"]))
    calm = min(length, _calm(stored))
    for name in ("loss", "mse"):
        ours, theirs = (np.asarray(side[f"trace_{name}"])[:length] for side in (stored, found))
        tolerance = np.where(np.arange(length) < calm, TOLERANCES.start, TOLERANCES.explosion)
        agree = np.isclose(ours, theirs, rtol=tolerance, atol=0, equal_nan=True)
        if not agree[: calm + 1].all():
            differences.append(f"{name} differs in the first {START} evaluations")
    return differences


def _calm(row: pd.Series) -> int:
    """Evaluations before the first that exploded."""
    exploded = np.zeros(len(row["trace_evaluation"]), dtype=bool)
    for name in ("loss", "mse"):
        values = np.asarray(row[f"trace_{name}"], dtype=float)
        exploded |= ~(values <= EXPLOSION * values[:1])
    return int(exploded.argmax()) if exploded.any() else len(exploded)


def _late_differences(stored: pd.Series, found: pd.Series) -> list[str]:
    differences = _different(("label_recovered",), stored, found)
    success = [bool(recovered(side["mse"])) for side in (stored, found)]
    if success[0] != success[1]:
        differences.append(f"mse is {stored['mse']:g}, recomputed {found['mse']:g}")
    elif all(success):
        differences += _different(("status",), stored, found)
        ratio = found["evaluations"] / stored["evaluations"]
        if abs(ratio - 1) > TOLERANCES.evaluations:
            differences.append(f"evaluations are {stored['evaluations']}, recomputed {found['evaluations']}")
        if not 1 / TOLERANCES.mse <= found["mse"] / stored["mse"] <= TOLERANCES.mse:
            differences.append(f"mse is {stored['mse']:g}, recomputed {found['mse']:g}")
    return differences
