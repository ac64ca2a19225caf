"""``python -m benchmarks.price``: what defences cost and buy, on data sets with enough images to train on.

Each row is written to ``benchmarks/price.json`` as soon as it is known, and what is there is not computed
again: the command may be stopped and run again. All rows take hours on one core; chapter 5.5 reads them.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.__main__ import _machine, _write
from wdlg import data
from wdlg.compiled import one_blas_thread
from wdlg.study.price import OFFERS, measure
from wdlg.threads import one_torch_thread

PRICE = Path(__file__).parent / "price.json"

SEEDS = 5
ATTACKED = {"digits": 3, "mnist": 1, "fashion_mnist": 1}
"""Seeds whose messages are attacked, too, by data set."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dataset", "datasets", multiple=True, type=click.Choice(list(ATTACKED)), help="Default: all.")
@click.option("--offer", "offers", multiple=True, type=click.Choice(list(OFFERS)), help="Default: all.")
@click.option("--seeds", default=SEEDS, show_default=True, help="Networks for each defence.")
@click.option("--data-dir", default=None, help="Folder of sample files.")
def main(datasets: tuple[str, ...], offers: tuple[str, ...], seeds: int, data_dir: str | None) -> None:
    """Train under each defence, attack, and keep what is found in benchmarks/price.json."""
    content: dict[str, Any] = json.loads(PRICE.read_text()) if PRICE.exists() else {"rows": []}
    rows = content["rows"]
    done = {(row["dataset"], row["offer"], row["seed"]) for row in rows}
    # The digits first, and what takes long last.
    order = sorted(
        ((dataset, seed) for dataset in datasets or tuple(ATTACKED) for seed in range(seeds)),
        key=lambda one: (one[0] != "digits", one[1] < ATTACKED[one[0]], one[1]),
    )
    for dataset, seed in order:
        sample = data.load(dataset, data_dir)
        for offer in offers or tuple(OFFERS):
            if (dataset, offer, seed) in done:
                continue
            with one_torch_thread(), one_blas_thread():
                row = measure(sample, offer, seed, attacked=seed < ATTACKED[dataset])
            click.echo(f"{dataset} {offer} seed {seed}: {row['accuracy']:.3f}, {row['seconds']:.0f} s")
            rows.append(_plain(row))
            made = time.strftime("%Y-%m-%d", time.gmtime())
            _write(PRICE, {"machine": _machine(), "made": made, "rows": rows})


def _plain(value: Any) -> Any:
    """The same with numbers that JSON has: three digits, and null for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    main()
