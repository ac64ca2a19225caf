"""``python -m benchmarks.batches``: images that mean gradients determine, and those that LM recovers.

Kept in ``benchmarks/batches.json``, which chapter 5.6 of the book shows: two images of 32x32x3 take a minute
for their rank and a quarter of an hour for the attack on one core, eight of 28x28 about as long.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from wdlg import data
from wdlg.attacks import LM, Status
from wdlg.attacks.labels import Known
from wdlg.identifiability import joint_limits, most_rank
from wdlg.study.batches import draw_batch, recover

KEPT = Path(__file__).parent / "batches.json"
SIZES = {"mnist": (1, 2, 4, 8), "cifar100": (1, 2)}
POINTS = 200
"""Of a spectrum that are kept."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dataset", "datasets", multiple=True, type=click.Choice(list(SIZES)), default=list(SIZES))
@click.option(
    "--images", "sizes", multiple=True, type=int, help="Batch sizes; those of the chapter by default."
)
@click.option("--attack/--no-attack", "attacks", default=False, help="Run Levenberg-Marquardt, too.")
@click.option("--steps", type=int, default=60, help="Most iterations of it.")
@click.option("--seed", type=int, default=0)
@click.option("--data-dir", default=None)
def main(
    datasets: tuple[str, ...],
    sizes: tuple[int, ...],
    attacks: bool,
    steps: int,
    seed: int,
    data_dir: str | None,
) -> None:
    """Measure, print one JSON object a line, and keep them."""
    torch.set_num_threads(1)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else []
    for name in datasets:
        for images in sizes or SIZES[name]:
            key = {"dataset": name, "images": images, "seed": seed}
            before = [row for row in kept if key.items() <= row.items()]
            row = (before or [key])[0]
            sample = data.load(name, data_dir)
            row = {**row, **(attacked if attacks else spectrum)(sample, images, seed, steps)}
            kept = [other for other in kept if other not in before]
            kept = sorted([*kept, row], key=lambda one: (one["dataset"], one["images"], one["seed"]))
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")
            click.echo(
                json.dumps({key: value for key, value in row.items() if key not in ("spectrum", "places")})
            )


def spectrum(sample: data.Sample, images: int, seed: int, steps: int) -> dict[str, Any]:  # noqa: ARG001
    """Rank and constant of a batch, and its singular values relative to the largest."""
    batch = draw_batch(sample, images, seed=seed)
    started = time.perf_counter()
    found = joint_limits(batch.network, batch.parameters, batch.truth, batch.labels)
    seconds = time.perf_counter() - started
    places = torch.linspace(0, found.pixels - 1, min(POINTS, found.pixels)).round().long()
    relative = found.singular_values / found.singular_values[0]
    return {
        "pixels": found.pixels,
        "rank": found.rank,
        "most_rank": most_rank(batch.network, images),
        "constant": found.constant if found.determined else None,
        "level_for_0.01": found.level_for(0.01),
        "seconds": round(seconds, 1),
        "places": (places + 1).tolist(),
        "spectrum": [float(f"{value:.3g}") for value in relative[places].tolist()],
    }


def attacked(sample: data.Sample, images: int, seed: int, steps: int) -> dict[str, Any]:
    """What Levenberg-Marquardt recovers of a batch, its labels known."""
    batch = draw_batch(sample, images, seed=seed)
    method = replace(LM, label_rule=Known(batch.labels), evaluations=round(1.3 * steps * batch.truth.numel()))
    found = recover(batch, method, seed=seed)
    return {
        "mse": [float(f"{value:.3g}") for value in found.mse.tolist()],
        "loss": float(found.result.loss),
        "status": Status(int(found.result.status)).name.lower(),
        "iterations": int(found.result.iterations),
        "attack_seconds": round(float(found.result.seconds), 1),
    }


if __name__ == "__main__":
    main()
