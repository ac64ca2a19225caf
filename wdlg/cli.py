"""The `wdlg` command: thin, and polite about mistakes."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import click

from wdlg import __version__
from wdlg.errors import InputError, require_choice, require_count


class _Group(click.Group):
    """Turns a user's mistake into one sentence on standard error and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"wdlg: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("wdlg: stopped.", err=True)
            ctx.exit(130)


def _option(*names: str, **settings: Any) -> Any:
    return click.option(*names, **{"show_default": settings.get("default") is not None, **settings})


dataset_option = _option("--dataset", metavar="NAME", required=True, help="Data set; see `wdlg data list`.")
data_dir_option = _option(
    "--data-dir",
    metavar="DIR",
    help="Folder of the sample files. Default: the environment variable WDLG_DATA, else your data folder.",
)
seed_option = _option("--seed", type=int, default=0, metavar="S", help="Decides every random draw.")
defence_option = _option(
    "--defence",
    metavar="NAME,SETTING=VALUE",
    help="What is done to the gradient before it is sent: noise,level=0.01; pruning,share=0.9; "
    "rounding,format=float16; quantisation,bits=8; clipped_noise,clip=1,multiplier=0.01.",
)
json_option = _option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wdlg")
def main() -> None:
    """Deep leakage from gradients: recover a private image and its label from a shared gradient.

    A participant of distributed training shares the gradient of a network's loss for one private image.
    These commands play the attacker who sees that gradient.
    """


@main.command()
@dataset_option
@_option("--index", type=int, metavar="I", help="Which image of the data set, from 0.  [default: 0]")
@_option(
    "--method",
    metavar="dlg|idlg|wdlg",
    required=True,
    help="dlg optimises image and label; idlg reads the label off the last layer's weights; wdlg off its "
    "biases, and matches gradients with a Wasserstein distance.",
)
@_option("--image", metavar="FILE", help="Attack a picture of your own, of the data set's size.")
@_option("--label", type=int, metavar="L", help="The class of the picture given with --image.")
@seed_option
@_option(
    "--evaluations", type=int, default=2400, metavar="N", help="The most gradient evaluations of the attack."
)
@_option("--learning-rate", type=float, default=1.0, metavar="R", help="Learning rate of L-BFGS.")
@defence_option
@_option("--figure", metavar="OUT.png", help="Save a picture: original, start, recovered, loss.")
@_option("--device", metavar="cpu|cuda", default="cpu", help="Where the attack computes.")
@data_dir_option
@json_option
def attack(
    dataset: str,
    index: int | None,
    method: str,
    image: str | None,
    label: int | None,
    seed: int,
    evaluations: int,
    learning_rate: float,
    defence: str | None,
    figure: str | None,
    device: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Attack one image: share its gradient, then recover the image from it.

    Example:  wdlg attack --dataset digits --index 3 --method idlg --figure leak.png
    """
    from wdlg import data, defences
    from wdlg.attack import METHODS, with_settings
    from wdlg.engine import require_device
    from wdlg.study import Design, draw, run_paired

    against = _defence(defence)
    chosen = with_settings(
        METHODS[require_choice("--method", method, METHODS)],
        evaluations=require_count("--evaluations", evaluations),
        learning_rate=learning_rate,
    )
    target = None if figure is None else _writable_png(figure)
    require_device("--device", device)
    if image is None:
        if label is not None:
            raise InputError(f"--label is {label}, but is allowed only together with --image.")
        sample = data.load(dataset, data_dir)
        position = require_count("--index", 0 if index is None else index, at_least=0, below=len(sample))
    else:
        if index is not None:
            raise InputError(f"--index is {index}, but must be left out when --image is given.")
        sample, position = _own_picture(dataset, image, label), 0
    cases = draw(sample, Design(networks=1, images=1, seed=seed, first_image=position, defence=against))
    outcome = run_paired(cases, [chosen], device=device, progress=sys.stderr.isatty())
    row = outcome.records.iloc[0]
    result = {
        "dataset": dataset,
        "index": None if image else position,
        "method": method,
        **{
            name: row[name]
            for name in (
                *("label_true", "label_recovered", "status", "iterations", "evaluations", "seconds"),
                *("loss", "mse", "psnr", "ssim"),
                *(() if against is None else ("relative_error", "cosine")),
            )
        },
        **({} if against is None else {"defence": defences.title(against)}),
    }
    if target is not None:
        from wdlg.figures import save, single_attack

        save(single_attack(outcome, chosen.name, start=cases.dummy_images.numpy()), target)
    if as_json:
        click.echo(_json(result))
        return
    from wdlg.attack import Status

    names = sample.class_names
    meaning = Status[str(row["status"]).upper()].meaning
    click.echo(f"{chosen.name} on {dataset}, {'your picture' if image else f'image {position}'}")
    if against is not None:
        click.echo(
            f"  defence    {result['defence']}: relative error {result['relative_error']:.2g}, "
            f"cosine {result['cosine']:.3f}"
        )
    click.echo(
        f"  label      {_class(result['label_true'], names)} was recovered as "
        f"{_class(result['label_recovered'], names)}"
    )
    click.echo(f"  status     {result['status']}: {meaning}")
    click.echo(
        f"  work       {result['evaluations']} gradient evaluations in {result['iterations']} "
        f"iterations, {result['seconds']:.1f} s"
    )
    click.echo(f"  loss       {result['loss']:.3g}")
    click.echo(
        f"  image      MSE {result['mse']:.3g}, PSNR {result['psnr']:.1f} dB, SSIM {result['ssim']:.3f}"
    )
    if target is not None:
        click.echo(f"  figure     {target}")


@main.command()
@dataset_option
@_option("--images", type=int, default=100, metavar="N", help="Gradients to read, each of a new network.")
@_option("--activation", metavar="sigmoid|relu|tanh", default="sigmoid", help="Activation of the networks.")
@defence_option
@seed_option
@data_dir_option
@json_option
def labels(
    dataset: str,
    images: int,
    activation: str,
    defence: str | None,
    seed: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Compare the two label rules: WDLG's bias_sign and iDLG's row_sum.

    With --defence, also bias_min: the least entry of the bias's gradient, whatever the other signs.

    Example:  wdlg labels --dataset digits --images 200 --activation tanh
    """
    from wdlg import data, defences
    from wdlg.labels import ANALYTIC
    from wdlg.networks import ACTIVATIONS
    from wdlg.study import compare_rules
    from wdlg.study.labels import summarise

    require_choice("--activation", activation, ACTIVATIONS)
    require_count("--images", images)
    against = _defence(defence)
    table = compare_rules(
        data.load(dataset, data_dir),
        images=images,
        activation=activation,
        seed=seed,
        rules=("bias_sign", "row_sum") if against is None else ANALYTIC,
        defence=against,
        progress=sys.stderr.isatty(),
    )
    rules = summarise(table)
    named = {} if against is None else {"defence": defences.title(against)}
    if as_json:
        click.echo(_json({"dataset": dataset, "activation": activation, **named, "rules": rules}))
        return
    click.echo(", ".join((dataset, f"{images} gradients", f"{activation} networks", *named.values())))
    for name, rule in rules.items():
        click.echo(
            f"  {name:<10} {100 * rule['accuracy']:6.2f} % right, {rule['undecided']} undecided, "
            f"{rule['steps']:,} steps and {1e6 * rule['seconds']:,.0f} µs a gradient"
        )


@main.group("data")
def data_group() -> None:
    """List the data sets, or make sample files from the official downloads."""


@data_group.command("list")
@data_dir_option
@json_option
def data_list(data_dir: str | None, as_json: bool) -> None:
    """Show which data sets are there and which are missing."""
    from wdlg import data

    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "title": entry.title,
            "shape": list(entry.shape),
            "classes": entry.num_classes,
            "present": data.is_present(entry.name, data_dir),
            "embedded": entry.embedded,
            "licence": entry.licence,
            "source": entry.source,
        }
        for entry in data.CATALOGUE.values()
    ]
    if as_json:
        click.echo(_json({"data_dir": str(data.data_dir(data_dir)), "datasets": rows}))
        return
    for row in rows:
        state = "embedded" if row["embedded"] else "present" if row["present"] else "missing"
        shape = "x".join(map(str, row["shape"]))
        click.echo(f"{row['name']:<14} {state:<9} {shape:<8} {row['classes']:>5} classes  {row['title']}")
    click.echo(f"Sample files are read from {data.data_dir(data_dir)}.")
    missing = [row["name"] for row in rows if not row["present"]]
    if missing:
        click.echo(f"Make the missing ones with: wdlg data fetch {' '.join(missing)}")


@data_group.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_option("--images", type=int, default=1000, metavar="N", help="Images in each sample, drawn by class.")
@_option("--seed", type=int, default=20230101, metavar="S", help="Decides the draw.")
@data_dir_option
def data_fetch(names: tuple[str, ...], images: int, seed: int, data_dir: str | None) -> None:
    """Download data sets and make their sample files; without a NAME, all five of the paper."""
    from wdlg import data

    for name in names:
        require_choice("NAME", name, data.PAPER)
    for name in names or data.PAPER:
        path = data.fetch(name, data_dir, images=images, seed=seed, progress=sys.stderr.isatty())
        click.echo(f"{name}: {path}")


@main.group("study")
def study_group() -> None:
    """Run a study from its file, see how far it is, check its records, judge the paper's claims."""


def _study_options(command: Any) -> Any:
    """The argument STUDY and the option --store, which all study commands take."""
    store = _option("--store", metavar="DIR", help="Folder of the records.  [default: results/NAME]")
    return click.argument("study", metavar="STUDY")(store(command))


def _open_study(study: str, store: str | None) -> tuple[Any, Any]:
    """The study and its store."""
    from wdlg.study.specification import load
    from wdlg.study.store import Store

    loaded = load(study)
    return loaded, Store(Path(store or Path("results", loaded.name)))


@study_group.command("run")
@_study_options
@_option("--part", "parts", multiple=True, metavar="NAME", help="Only this part; may be given again.")
@_option("--processes", type=int, metavar="N", help="Cells side by side.  [default: the cores]")
@data_dir_option
def study_run(
    study: str, store: str | None, parts: tuple[str, ...], processes: int | None, data_dir: str | None
) -> None:
    """Compute the cells that the store does not hold yet. May be stopped at any time, and run again.

    Example:  wdlg study run studies/paper.yaml --part main
    """
    from wdlg.study.runner import run

    loaded, records = _open_study(study, store)
    remarks = run(
        loaded, records, data_dir=data_dir, parts=parts, processes=processes, progress=sys.stderr.isatty()
    )
    for remark in remarks:
        click.echo(f"wdlg: {remark}", err=True)
    click.echo(f"{loaded.name}: everything that can be computed here is in {records.folder}.")


@study_group.command("status")
@_study_options
@_option("--processes", type=int, metavar="N", help="For the time left.  [default: the cores]")
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
        click.echo(_json({"study": loaded.name, "groups": groups, "seconds_left": known, "remarks": remarks}))
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
@_option("--attacks", type=int, default=20, metavar="N", help="How many stored attacks are recomputed.")
@_option("--seed", type=int, metavar="S", help="Decides which.  [default: others every time]")
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
            _json(
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
    from wdlg.study.ledger import from_store

    loaded, records = _open_study(study, store)
    entries = from_store(loaded, records, command=f"wdlg study run {study}")
    if as_json:
        click.echo(_json([entry.as_json() for entry in entries]))
        return
    for entry in entries:
        condition = f" ({entry.result.condition})" if entry.result.condition else ""
        click.echo(f"{entry.id}: {entry.claim}")
        click.echo(f"  {entry.result.verdict}{condition}")
        click.echo(f"  {entry.result.summary}")


@main.command("book")
@_option(
    "--profile",
    metavar="quick|paper",
    default="quick",
    help="quick computes everything on embedded images; paper uses the five data sets of the paper.",
)
@_option("--jobs", type=int, metavar="N", help="Notebooks that run side by side.  [default: the cores]")
@data_dir_option
def book_command(profile: str, jobs: int | None, data_dir: str | None) -> None:
    """Execute the notebooks and build the book. Run it in a checkout of the repository."""
    from wdlg import book

    try:
        book.build(profile, data_dir=data_dir, jobs=jobs)
    except book.BookError as error:
        click.echo(f"wdlg: {error}", err=True)
        sys.exit(1)


@main.command("slides")
def slides_command() -> None:
    """Make the slides of the lectures in book/slides again, from the pages of the last `wdlg book`."""
    from wdlg import book

    for path in book.slides():
        click.echo(path)


@main.command("pdf")
def pdf_command() -> None:
    """Print the built book into one PDF, book/_build/wdlg.pdf. Needs `wdlg book` first, and a Chromium."""
    from wdlg import book, pdf

    try:
        pdf.make()
    except book.BookError as error:
        click.echo(f"wdlg: {error}", err=True)
        sys.exit(1)


def _defence(text: str | None) -> Any:
    """The defence that --defence names, or None."""
    from wdlg import defences

    try:
        return None if text is None else defences.parse(text)
    except InputError as error:
        raise InputError(f"--defence {text!r}: {error}") from None


def _own_picture(dataset: str, image: str, label: int | None) -> Any:
    """A sample of the user's one picture, with the catalogue's classes of that data set."""
    import numpy as np

    from wdlg import data

    entry = data.CATALOGUE[require_choice("--dataset", dataset, data.CATALOGUE)]
    if label is None:
        raise InputError(f"--label is missing, but --image needs one, from 0 to {entry.num_classes - 1}.")
    require_count("--label", label, at_least=0, below=entry.num_classes)
    return data.Sample(
        name=dataset,
        images=data.read_image(image, entry.shape)[None],
        labels=np.array([label]),
        class_names=(),
        num_classes=entry.num_classes,
        split=np.array(["own"]),
        source=np.array([image]),
    )


def _writable_png(figure: str) -> Path:
    """The path of the figure, checked before the work starts."""
    path = Path(figure)
    if path.suffix.lower() != ".png":
        raise InputError(f"--figure is {figure!r}, but must end in .png.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--figure is {figure!r}, but its folder must exist and be writable.")
    return path


def _class(label: int, names: tuple[str, ...]) -> str:
    if label < 0:
        return "undecided"
    return f"{label} ({names[label]})" if label < len(names) and names[label] != str(label) else str(label)


def _duration(seconds: float | None) -> str:
    """A time in words: "unknown", "40 s", "12 min", "3.5 h"."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _json(value: Any) -> str:
    """JSON text; what is not a finite number becomes null."""

    def clean(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: clean(entry) for key, entry in part.items()}
        if isinstance(part, list):
            return [clean(entry) for entry in part]
        part = part.item() if hasattr(part, "item") else part
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(clean(value), indent=2, allow_nan=False)
