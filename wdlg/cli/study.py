"""`wdlg study`: run a study, see how far it is, check its records, judge the claims."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from wdlg.cli.options import data_dir_option, json_option, json_text, option
from wdlg.errors import InputError, require_count
from wdlg.interruption import exit_code_of_request


@click.group("study")
def study_group() -> None:
    """Run a study from its file, see how far it is, check its records, judge the paper's claims.

    STUDY is a file, or the name of a study of the project: paper, quick, readings or defences.
    """


def _study_options(command: Any) -> Any:
    """The argument STUDY and the option --store, which all study commands take."""
    store = option(
        "--store",
        metavar="DIR",
        help="Folder of the records.  [default: results/NAME; where that is not there, and nothing is to be "
        "computed, the records that came with the study]",
    )
    return click.argument("study", metavar="STUDY")(store(command))


def _open_study(study: str, store: str | None, *, computes: bool = False) -> tuple[Any, Any]:
    """The study and its store."""
    from wdlg import project
    from wdlg.study.specification import load
    from wdlg.study.store import Store

    file = project.study_file(study)
    loaded = load(file)
    folder: Any = Path("results", loaded.name)
    if store is not None:
        folder = store if "://" in store else Path(store)
    elif not computes and not folder.exists():
        folder = project.records_beside(file, loaded.name) or folder
    return loaded, Store(folder)


@study_group.command("run")
@_study_options
@option("--part", "parts", multiple=True, metavar="NAME", help="Only this part; may be given again.")
@option(
    "--processes", type=int, metavar="N", help="Cells side by side on this machine.  [default: the cores]"
)
@option(
    "--scheduler",
    metavar="ADDRESS",
    help="Compute on the dask.distributed cluster of this scheduler, given by its address or its scheduler "
    "file; local starts one on this machine.",
)
@data_dir_option
def study_run(
    study: str,
    store: str | None,
    parts: tuple[str, ...],
    processes: int | None,
    scheduler: str | None,
    data_dir: str | None,
) -> None:
    """Compute the cells that the store does not hold yet. May be stopped at any time, and run again.

    On a cluster each worker writes its records itself: --store and --data-dir are folders that all of them
    see, or --store is an address such as s3://BUCKET/NAME.

    Exit code 130, 143 or 129 if it was stopped by Ctrl-C, by a request to end, or with its terminal.

    Example:  wdlg study run studies/paper.yaml --part main
    """
    from wdlg.study.runner import run

    loaded, records = _open_study(study, store, computes=True)
    if processes is not None:
        require_count("--processes", processes)
    with exit_code_of_request(), _computers(scheduler, processes) as cluster:
        if cluster is not None:
            click.echo(f"wdlg: {cluster.text()}", err=True)
        remarks = run(
            loaded,
            records,
            data_dir=data_dir,
            parts=parts,
            processes=processes,
            executor=cluster,
            progress=sys.stderr.isatty(),
        )
    for remark in remarks:
        click.echo(f"wdlg: {remark}", err=True)
    click.echo(f"{loaded.name}: everything that can be computed here is in {records.folder}.")


def _computers(scheduler: str | None, processes: int | None) -> AbstractContextManager[Any]:
    """The cluster that was asked for, or none."""
    if scheduler is None:
        return nullcontext()
    from wdlg.study.cluster import connect

    return connect(scheduler, workers=processes)


@study_group.command("status")
@_study_options
@option("--processes", type=int, metavar="N", help="For the time left.  [default: the cores]")
@json_option
def study_status(study: str, store: str | None, processes: int | None, as_json: bool) -> None:
    """Show what is done, what is left, and the time that it will take."""
    from wdlg.study.runner import status

    loaded, records = _open_study(study, store)
    count = require_count("--processes", (os.cpu_count() or 1) if processes is None else processes)
    rows, remarks = status(loaded, records)
    times = [row.seconds_left for row in rows]
    known = None if None in times else sum(filter(None, times)) / count
    if as_json:
        groups = [
            {
                "group": "/".join(row.group),
                "done": row.done,
                "cells": row.cells,
                "attacks": row.attacks,
                "successes": row.successes,
                "seconds_left": row.seconds_left,
            }
            for row in rows
        ]
        click.echo(
            json_text({"study": loaded.name, "groups": groups, "seconds_left": known, "remarks": remarks})
        )
        return
    for row in rows:
        share = f"{row.successes}/{row.attacks} successes" if row.attacks else ""
        left = "" if row.done == row.cells else f"  {_duration(row.seconds_left)} of computing left"
        click.echo(f"{'/'.join(row.group):<44} {row.done:>4}/{row.cells:<4} cells  {share}{left}")
    for remark in remarks:
        click.echo(f"wdlg: {remark}", err=True)
    if any(row.done < row.cells for row in rows):
        click.echo(f"Left with {count} processes: {_duration(known)}.")


@study_group.command("audit")
@_study_options
@option("--attacks", type=int, default=20, metavar="N", help="How many stored attacks are recomputed.")
@option("--seed", type=int, metavar="S", help="Decides which.  [default: others every time]")
@data_dir_option
@json_option
def study_audit(
    study: str, store: str | None, attacks: int, seed: int | None, data_dir: str | None, as_json: bool
) -> None:
    """Check the digest of every file, recompute a random few of the attacks, and compare.

    Exit code 1 if the records do not stand. The book's status page shows the report that is kept in
    results/audit.json:  wdlg study audit studies/paper.yaml --json > results/audit.json
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from wdlg.study.audit import TOLERANCES, audit
    from wdlg.study.store import provenance

    loaded, records = _open_study(study, store)
    report = audit(
        loaded, records, attacks=attacks, seed=seed, data_dir=data_dir, progress=sys.stderr.isatty()
    )
    if as_json:
        click.echo(
            json_text(
                {
                    "study": loaded.name,
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                    "seed": seed,
                    "audited_by": provenance(),
                    "passed": report.passed,
                    "tolerances": asdict(TOLERANCES),
                    "bad_files": list(report.bad_files),
                    "findings": [asdict(finding) for finding in report.findings],
                }
            )
        )
    else:
        for finding in report.findings:
            click.echo(f"{finding.verdict:<13} {finding.attack}  {finding.detail}".rstrip())
        for text in report.bad_files:
            click.echo(f"bad file      {text}")
        agreeing = sum(finding.verdict == "agrees" for finding in report.findings)
        outcome = "the records stand" if report.passed else "the records do not stand"
        click.echo(f"{agreeing} of {len(report.findings)} attacks agree within the tolerances: {outcome}.")
    if not report.passed:
        sys.exit(1)


@study_group.command("report")
@_study_options
@json_option
def study_report(study: str, store: str | None, as_json: bool) -> None:
    """Judge the paper's claims by the records of a study: the claims ledger."""
    from wdlg.verdicts.elsewhere import in_words
    from wdlg.verdicts.ledger import beside, from_store

    loaded, records = _open_study(study, store)
    records.require_of(loaded)
    if not records.any_of(loaded.cells):
        raise InputError(
            f"--store is {str(records.folder)!r}, but must hold records of the study: run `wdlg study run "
            f"{study}`, or name the folder where they are."
        )
    others = beside(loaded.name)
    command = f"wdlg study run {study}"
    entries = from_store(loaded, records, command=command, thresholds=as_json, beside=others)
    if as_json:
        click.echo(json_text([entry.as_json() for entry in entries]))
        return
    for entry in entries:
        condition = f" ({entry.result.condition})" if entry.result.condition else ""
        click.echo(f"{entry.id}: {entry.claim}")
        click.echo(f"  {entry.result.verdict}{condition}")
        for past in entry.history:
            click.echo(f"  {past.text()}")
        click.echo(f"  {entry.result.summary}")
        if entry.by:
            click.echo(f"  elsewhere: {in_words(entry.by)}")


@study_group.command("rates")
@_study_options
@json_option
def study_rates(study: str, store: str | None, as_json: bool) -> None:
    """Show the best learning rate of each method in each part that tries several.

    First is the rate that recovered most images; of equals, the one with fewer explosions, then with the
    lower median MSE, then the smaller one. A method of which a rate is not computed yet is left out.
    """
    from wdlg.study.tuning import tuned

    loaded, records = _open_study(study, store)
    records.require_of(loaded)
    table, left_out = tuned(loaded, records)
    if as_json:
        parts = {
            part: dict(zip(rows["method"], rows["learning_rate"], strict=True))
            for part, rows in table.groupby("part", sort=False)
        }
        click.echo(json_text(parts))
    else:
        for row in table.to_dict("records"):
            click.echo(
                f"{row['part'] + '/' + row['method']:<52} {row['learning_rate']:<6g} "
                f"{row['successes']}/{row['attacks']} successes, {row['explosions']} explosions, "
                f"median MSE {row['median_mse']:.2g}"
            )
    if left_out:
        click.echo(f"wdlg: {left_out} methods are left out, whose rates are not all computed.", err=True)


def _duration(seconds: float | None) -> str:
    """A time in words: "unknown", "40 s", "12 min", "3.5 h"."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
