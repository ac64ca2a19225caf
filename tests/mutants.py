"""The share of a seeded sample of mutants that the tests notice, module by module: ``make mutants``.

A mutant is a copy of one function with one small change: a sign, a bound, a name, an argument left out.
mutmut makes them, and runs for each the tests that call the function (``[tool.mutmut]`` of pyproject.toml).
A mutant that no test notices is a fact that no test states, or a change that alters nothing.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from statsmodels.stats.proportion import proportion_confint

KILLED, UNTESTED = "killed", "no tests"
STATUS = {0: "survived", 5: UNTESTED, 33: UNTESTED, None: "not tried"}
"""By the exit code that mutmut keeps. Every other code is a failed test, an end by force or by the clock."""


MEMORY = 10 * 2**30
"""Bytes that a process may take: a mutant without its bound can ask for all there are."""

LOADED = "torch, numba, pandas, scipy.stats, skimage.metrics"
"""Imported once instead of in the process of every mutant, which would take longer than its tests."""


def mutmut(*arguments: str) -> None:
    """Run the tool. It tries a mutant that is named, whatever it has kept of an earlier run."""
    bounded = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))"
    started = f"{bounded}; import {LOADED}; from mutmut.__main__ import cli; cli()"
    subprocess.run([sys.executable, "-c", started, *arguments], check=False)


def found() -> dict[str, dict[str, int | None]]:
    """Exit code of each mutant (None: not tried) by module."""
    made = {}
    for path in sorted(Path("mutants").rglob("*.py.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        if codes:
            made[str(path.relative_to("mutants")).removesuffix(".meta")] = codes
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="paths such as wdlg/attacks/labels.py; all by default")
    parser.add_argument("--sample", type=int, default=60, help="mutants of each module; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", default="1", help="mutants tried side by side")
    options = parser.parse_args()
    run = ("run", "--max-children", options.processes)

    mutmut(*run, "wdlg.attacks.labels.x_steps__mutmut_1")  # makes all, and tries this one
    chosen = {}
    for module, codes in found().items():
        if options.modules and module not in options.modules:
            continue
        names = sorted(codes)
        size = min(options.sample or len(names), len(names))
        chosen[module] = random.Random(options.seed).sample(names, size)
    mutmut(*run, *(name for names in chosen.values() for name in names))

    print(f"{'module':30} {'mutants':>8} {'tried':>6} {'killed':>7} {'share':>6}   95 % interval")
    survivors = []
    for module, names in chosen.items():
        codes = found()[module]
        status = {name: STATUS.get(codes[name], KILLED) for name in names}
        killed = sum(value == KILLED for value in status.values())
        low, high = proportion_confint(killed, len(names), method="wilson")
        counts = f"{len(codes):8} {len(names):6} {killed:7} {killed / len(names):6.0%}"
        print(f"{module:30} {counts}   {low:.0%} to {high:.0%}")
        survivors += [f"{value:9} {name}" for name, value in sorted(status.items()) if value != KILLED]
    if any(found()[module][name] is None for module, names in chosen.items() for name in names):
        raise SystemExit(
            "The tool stopped before the end; what it says above tells why, often a test that fails."
        )
    print("\nNot noticed (`mutmut show NAME` tells the change):", *survivors, sep="\n")


if __name__ == "__main__":
    main()
