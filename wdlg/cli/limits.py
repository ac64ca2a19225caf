"""`wdlg limits`: what a gradient gives away at all, before anybody attacks."""

from __future__ import annotations

from typing import Any

import click

from wdlg.cli.options import data_dir_option, json_option, json_text, loading, option, seed_option
from wdlg.errors import InputError, require_choice, require_count, require_positive

LEVELS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Relative noise levels of the table, unless --level names one."""


@click.command()
@option("--dataset", metavar="NAME", required=True, help="Data set; see `wdlg data list`.")
@option("--index", type=int, default=0, metavar="I", help="Which image of the data set, from 0.")
@option("--network", metavar="NAME", default="lenet", help="Architecture: lenet, convnet or resnet.")
@option("--activation", metavar="sigmoid|relu|tanh", help="Of the network.  [default: its own]")
@option("--initial", metavar="uniform|torch", help="Its initial weights.  [default: its own]")
@option("--level", type=float, metavar="L", help="Relative noise level.  [default: a table of four]")
@option("--accuracy", type=float, default=0.1, metavar="A", help="To which a direction is to be told.")
@option("--mse", type=float, default=0.01, metavar="E", help="Error that the noise is to make impossible.")
@option("--delta", type=float, default=1e-5, metavar="D", help="Of differential privacy.")
@seed_option
@data_dir_option
@json_option
def limits(
    dataset: str,
    index: int,
    network: str,
    activation: str | None,
    initial: str | None,
    level: float | None,
    accuracy: float,
    mse: float,
    delta: float,
    seed: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Bound what any unbiased attack can see of an image at a level of noise.

    Example:  wdlg limits --dataset digits --index 3 --level 0.01
    """
    with loading():
        from wdlg import data
        from wdlg import limits as bounds
        from wdlg.networks.registry import NETWORKS
        from wdlg.study.cases import Design, draw

    levels = LEVELS if level is None else (require_positive("--level", level),)
    require_positive("--accuracy", accuracy)
    require_positive("--mse", mse)
    if require_positive("--delta", delta) >= 1:
        raise InputError(f"--delta is {delta}, but must be above 0 and below 1.")
    require_choice("--network", network, NETWORKS)
    sample = data.load(dataset, data_dir)
    require_count("--index", index, at_least=0, below=len(sample))
    design = Design(
        networks=1, seed=seed, first_image=index, network=network, activation=activation, initial=initial
    )
    cases = draw(sample, design)
    found = bounds.limits(cases.network, cases.parameters, cases.truth[0], int(cases.labels[0]))
    enough = found.level_for(mse)
    multiplier = enough / found.entries**0.5
    result: dict[str, Any] = {
        "dataset": dataset,
        "index": index,
        "pixels": found.pixels,
        "entries": found.entries,
        "rank": found.rank,
        "constant": found.constant,
        "levels": [
            {"level": one, "mse": found.bound(one), "directions": found.directions(one, accuracy)}
            for one in levels
        ],
        "accuracy": accuracy,
        "mse": mse,
        "level_for_mse": enough,
        "epsilon": bounds.epsilon(multiplier, delta) if multiplier else None,
        "delta": delta,
    }
    if as_json:
        click.echo(json_text(result))
        return
    click.echo(f"{dataset}, image {index}: {found.entries:,} entries of the gradient, {found.pixels} pixels")
    click.echo(f"  rank       {found.rank} of {found.pixels} directions are in the gradient")
    for row in result["levels"]:
        click.echo(
            f"  level {row['level']:<7g} MSE {row['mse']:.2g} at least, {row['directions']} directions to "
            f"within {accuracy:g}"
        )
    if not multiplier:
        click.echo(f"  no noise   is needed: no unbiased attack reaches an MSE of {mse:g}")
        return
    click.echo(
        f"  enough     noise of level {enough:.2g}: no unbiased attack then reaches an MSE of {mse:g}; of a "
        f"clipped gradient that is epsilon {result['epsilon']:.3g} at delta {delta:g}"
    )
