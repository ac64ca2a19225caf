"""The measures that decide claims on losses, errors, success and explosions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from wdlg.evaluation import EXPLOSION, SUCCESS
from wdlg.study.statistics import quartiles, share
from wdlg.verdicts.claims import CONDITION, FAILED, UNDECIDED, UNTESTABLE, rules
from wdlg.verdicts.comparison import (
    ALL,
    Limits,
    compare_all,
    compare_overall,
    compared,
    corrected,
    exploded,
    exploded_by_loss,
    of_method,
    on_each_data_set,
    pooled,
    some,
    successes,
)
from wdlg.verdicts.result import Records, Result
from wdlg.verdicts.wording import (
    TOO_FEW,
    hopeless,
    lack,
    listed,
    named,
    settle,
    share_in,
    shares_in,
    title,
    titles,
    values,
    words,
)


def lower_loss(records: Records) -> Result:
    """How far each loss fell: not a comparison, since the losses are different quantities."""
    table = some(records.attacks, "attacks")
    # A run without a loss did not fall; pandas would leave it out.
    fall = (table["loss"] / table["loss_first"]).fillna(np.inf).groupby(table["method"]).median()
    return Result(
        UNTESTABLE,
        "median loss at the end as a share of its start: "
        + ", ".join(f"{name} {value:.1e}" for name, value in fall.items()),
        "the losses are different quantities in different units",
        {str(name): float(value) for name, value in fall.items()},
    )


def paired(
    records: Records, *, score: str, method: str, opponents: Sequence[str], success: float = SUCCESS
) -> Result:
    """One method against others, case by case, on every data set."""
    datasets, limits = rules()["datasets"], Limits(success)
    table = named(some(records.attacks, "attacks"), datasets)
    comparisons = compare_all(table, score, method, opponents, limits)
    lacking = lack(table, (method, *opponents), datasets)
    judged = {key: one for key, one in comparisons.items() if key[0] in datasets}
    better = [key for key, one in judged.items() if one.significant and one.mean > 0]
    worse = [key for key, one in judged.items() if one.significant and one.mean < 0]
    lost = [f"significantly worse in {len(worse)} of {len(judged)} comparisons"] if worse else []
    where = "only " + "; ".join(f"on {title(one)} against {two}" for one, two in better)
    verdict, condition = settle(
        len(better) == len(judged),
        [where, *lost] if better else [],
        lacking,
        "; ".join(lost),
    )
    if verdict == FAILED and not worse and hopeless(judged.values()):
        verdict, condition = UNDECIDED, TOO_FEW
    middle = float(np.mean([one.mean for one in comparisons.values()]))
    together = pooled(table, score, method, opponents[-1], limits)
    return Result(
        verdict,
        "; ".join(f"{title(one)} against {two} {value.text()}" for (one, two), value in comparisons.items()),
        condition,
        {f"{one}/{two}": value.as_json() for (one, two), value in comparisons.items()} | {"mean": middle},
        (together.low, together.high),
        _counts(better, worse, judged),
    )


def order(
    records: Records,
    *,
    score: str,
    from_last_to_first: Sequence[str],
    datasets: Sequence[str],
    success: float = SUCCESS,
) -> Result:
    """Do methods follow one another in an order, from the last to the first?"""
    table = named(some(records.attacks, "attacks"), datasets)
    steps = [(later, earlier) for earlier, later in pairwise(from_last_to_first)]
    found = corrected(on_each_data_set(table, score, steps, Limits(success)))
    lacking = lack(table, from_last_to_first, datasets)
    judged = {key: one for key, one in found.items() if key[0] in datasets}
    held = {key for key, one in judged.items() if one.significant and one.mean > 0}
    worse = [key for key, one in judged.items() if one.significant and one.mean < 0]
    whole = [name for name in datasets if all((name, *step) in held for step in steps)]
    said = [
        f"{later} needs {than} than {earlier} on {titles(names)}"
        for later, earlier in steps
        for than, keys in (("fewer", held), ("more", worse))
        if (names := [name for name in datasets if (name, later, earlier) in keys])
    ]
    pair = any(all((name, *step) in held for name in datasets) for step in steps)
    conditions = [f"on {titles(whole)}"] if whole else ["; ".join(said)] if pair else []
    verdict, condition = settle(len(whole) == len(datasets), conditions, lacking, "; ".join(said))
    if verdict == FAILED and not worse and hopeless(judged.values()):
        verdict, condition = UNDECIDED, TOO_FEW
    return Result(
        verdict,
        "; ".join(
            f"{title(name)}: {later} against {earlier} {one.text()}"
            for (name, later, earlier), one in found.items()
        ),
        condition,
        {"/".join(key): one.as_json() for key, one in found.items()},
        headline=f"{len(held)} of {len(judged)} steps of the order hold" if judged else "",
    )


def _counts(better: Sequence[Any], worse: Sequence[Any], judged: Mapping[Any, Any]) -> str:
    """Of how many comparisons a method is significantly better, and worse."""
    if not judged:
        return ""
    return f"better in {len(better)}, worse in {len(worse)} of {len(judged)} comparisons"


def no_explosion_by_loss(
    records: Records, *, method: str, opponents: Sequence[str], rarely: float, times: float
) -> Result:
    """Does the loss of a method hardly ever explode, and less often than that of others?"""
    datasets, limits = rules()["datasets"], Limits(times=times)
    table = named(some(records.attacks, "attacks"), datasets)
    lacking = lack(table, (method, *opponents), datasets)
    shares = {}
    for name in (method, *opponents):
        rows = of_method(table, name)
        shares[name] = share_in(rows, exploded_by_loss(rows, times))
    score = "calm by loss"
    family = corrected({one: compared(table, score, method, one, limits) for one in opponents})
    fewer = [name for name, one in family.items() if one.significant and one.mean > 0]
    more = [name for name, one in family.items() if one.significant and one.mean < 0]
    rare = shares[method].high < rarely and not more
    theirs = [name for name in opponents if name not in fewer]
    conditions = []
    if rare and all(shares[name].high < rarely for name in theirs):
        of_theirs = words([f"{name} ({100 * shares[name].value:.1f} %)" for name in theirs])
        conditions = [f"hardly any run of {of_theirs} does so either"] if theirs else []
    verdict, condition = settle(
        rare and not theirs, conditions, lacking, f"more often than {words(more)}" if more else ""
    )
    if verdict == CONDITION and lacking:  # one share of all data sets together says nothing of a part
        verdict, condition = UNDECIDED, lacking.text()
    if verdict == FAILED and shares[method].low < rarely <= shares[method].high and not more:
        possible = share(0, shares[method].networks).high < rarely
        verdict, condition = (verdict, condition) if possible else (UNDECIDED, TOO_FEW)
    of_image = {name: float(of_method(table, name)["exploded"].mean()) for name in shares}
    return Result(
        verdict,
        ", ".join(f"{name} {one.percent()} of {one.runs:,}" for name, one in shares.items())
        + "; avoided, "
        + ", ".join(f"against {name} {one.text()}" for name, one in family.items())
        + "; by loss or image "
        + ", ".join(f"{name} {100 * value:.0f} %" for name, value in of_image.items()),
        condition,
        values(shares) | {f"against {name}": one.as_json() for name, one in family.items()},
        (shares[method].low, shares[method].high),
        ", ".join(f"{name} {100 * one.value:.1f} %" for name, one in shares.items()) + " of runs",
    )


def no_explosion(
    records: Records,
    *,
    method: str,
    rarely: float,
    recovers: float,
    times: float = EXPLOSION,
    success: float = SUCCESS,
) -> Result:
    """Does the method hardly ever explode, while it recovers images?"""
    datasets = rules()["datasets"]
    table = named(some(records.attacks, "attacks"), datasets)
    rows = of_method(table, method)
    lacking = lack(table, [method], datasets)
    blown = shares_in(rows.assign(blown=exploded(rows, times)), "blown")
    good = shares_in(rows.assign(good=successes(rows, success)), "good")
    calm = [name for name, one in blown.items() if one.high < rarely and name in datasets]
    useful = [name for name in calm if good[name].value >= recovers]
    where = f"on {titles(calm)}, where it recovers " + ", ".join(
        f"{100 * good[name].value:.0f} %" for name in calm
    )
    verdict, condition = settle(len(useful) == len(blown), [where] if calm else [], lacking)
    contradicted = any(one.low >= rarely for one in blown.values())
    # An interval may be too wide for the claim whatever happens: then nothing else than its width speaks.
    possible = any(share(0, one.networks).high < rarely for one in blown.values())
    if verdict == FAILED and not possible and not contradicted:
        verdict, condition = UNDECIDED, TOO_FEW
    others = {
        str(name): share_in(part, exploded(part, times)).percent() for name, part in table.groupby("method")
    }
    return Result(
        verdict,
        f"{method} exploded: {listed(blown)}; all data sets: "
        + ", ".join(f"{name} {text}" for name, text in others.items()),
        condition,
        values(blown),
        headline=f"{method} {100 * float(exploded(rows, times).mean()):.0f} % of runs",
    )


def fidelity(records: Records, *, method: str, dataset: str, mse: float, share: float) -> Result:
    """How many images of one data set come very close?"""
    rows = named(of_method(records.attacks, method), [dataset])
    lacking = lack(rows, [method], [dataset])
    one = share_in(rows, rows["mse"] < mse)
    median = float(quartiles(rows["mse"])[1])
    verdict, condition = settle(one.low >= share, [], lacking)
    return Result(
        verdict,
        f"{one.percent()} of {one.runs} runs below {mse:g}; median MSE {median:.2g}",
        condition,
        numbers={"share": one.value, "median_mse": median},
        interval=(one.low, one.high),
        headline=f"{100 * one.value:.0f} % of {one.runs} runs below {mse:g}",
    )


def strongest(
    records: Records, *, method: str, opponent: str, final: str = "attacks", success: float = SUCCESS
) -> Result:
    """Does a loss beat iDLG in success and in explosions, in its final comparison (a table of records)?"""
    datasets = rules()["datasets"]
    table = named(some(getattr(records, final), "attacks"), datasets)
    gains = {"success": "more success", "calm": "fewer explosions"}
    phrases = {"success": "success", "calm": "explosions avoided"}
    family = compare_overall(table, list(gains), method, opponent, Limits(success))
    lacking = lack(table, (method, opponent), datasets)
    results = {
        score: {name: one for (by, name), one in family.items() if by == score and name != ALL}
        for score in gains
    }
    together = {score: family[score, ALL] for score in gains}
    won = {
        score: [name for name, one in found.items() if one.significant and one.mean > 0 and name in datasets]
        for score, found in results.items()
    }
    conditions = [f"{gain} on {titles(won[score])}" for score, gain in gains.items() if won[score]]
    conditions += [
        f"{gain} over all data sets together"
        for score, gain in gains.items()
        if together[score].significant and together[score].mean > 0 and not lacking
    ]
    holds = all(len(won[score]) == len(found) for score, found in results.items())
    verdict, condition = settle(holds, ["; ".join(conditions)] if conditions else [], lacking)
    lost = any(one.significant and one.mean < 0 for one in family.values())
    if verdict == FAILED and not lost and hopeless(family.values()):
        verdict, condition = UNDECIDED, TOO_FEW
    return Result(
        verdict,
        "; ".join(
            f"{phrases[score]}, all data sets {together[score].text()} ("
            + ", ".join(f"{title(name)} {one.text()}" for name, one in results[score].items())
            + ")"
            for score in gains
        ),
        condition,
        {
            score: {name: one.as_json() for name, one in found.items()} | {ALL: together[score].as_json()}
            for score, found in results.items()
        },
        (together["success"].paired.low, together["success"].paired.high),
        f"{100 * together['success'].mean:+.0f} % recovered, {-100 * together['calm'].mean:+.0f} % exploded",
    )
