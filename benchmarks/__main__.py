"""``python -m benchmarks [NAME ...]``: measure, print each ratio with its spread, and keep the results."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import click
import torch

from benchmarks import alone, scaling, second_order, timing
from benchmarks.goals import GOALS
from benchmarks.ideas import ideas

FOLDER = Path(__file__).parent
OTHERS = ("ideas", "alone", "scaling", "second-order", "cluster")
LATEST, IDEAS, SCALING, ALONE, SECOND_ORDER, CLUSTER = (
    FOLDER / f"{name}.json" for name in ("latest", "ideas", "scaling", "alone", "second_order", "cluster")
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice([*GOALS, *OTHERS]))
def main(names: tuple[str, ...]) -> None:
    """Measure the engine side by side with the plain way, and keep the results in benchmarks/.

    NAMES are the measurements to make; without any all of them but cluster, which needs the extra of that
    name and takes long.
    """
    kept = {entry["command"]: entry for entry in json.loads(LATEST.read_text())} if LATEST.exists() else {}
    for key, goal in GOALS.items():
        if names and key not in names:
            continue
        click.echo(f"{goal.name} ...", nl=False)
        spread, words = goal.measure()
        reached = spread.median <= goal.at_least if goal.smaller_is_better else spread.median >= goal.at_least
        click.echo(
            f" {spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f}); at least {goal.at_least:g}, "
            f"aim {goal.aim:g}: {'reached' if reached else 'NOT reached'} [{words}]"
        )
        kept[f"python -m benchmarks {key}"] = {
            "name": goal.name,
            "ratio": round(spread.median, 3),
            "low": round(spread.low, 3),
            "high": round(spread.high, 3),
            "at_least": goal.at_least,
            "aim": goal.aim,
            "smaller_is_better": goal.smaller_is_better,
            "measured": words,
            "command": f"python -m benchmarks {key}",
        }
        order = [f"python -m benchmarks {key}" for key in GOALS]
        LATEST.write_text(
            json.dumps([kept[command] for command in order if command in kept], indent=1) + "\n"
        )
    if not names or "ideas" in names:
        found = [timing.one_thread(idea.measure) for idea in ideas()]
        for entry in found:
            click.echo("{name}: {ratio} times as fast ({low} to {high})".format(**entry))
        _write(IDEAS, found)
    for key, path, measure in (
        ("alone", ALONE, alone.measure),
        ("scaling", SCALING, scaling.measure),
        ("second-order", SECOND_ORDER, second_order.measure),
    ):
        if not names or key in names:
            _write(path, {"machine": _machine(), **measure(click.echo)})
    if "cluster" in names:
        from benchmarks import cluster

        _write(CLUSTER, {"machine": _machine(), **cluster.measure(click.echo)})


def _machine() -> dict[str, object]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": torch.multiprocessing.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _write(path: Path, content: object) -> None:
    """Replace a file in one step, so that an interrupted run leaves the old one whole."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
