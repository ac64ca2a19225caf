"""`wdlg audit`: what the messages of a model of one's own give away, by bounds and by attacks."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wdlg.cli.options import data_dir_option, json_option, json_text, loading, option, seed_option
from wdlg.errors import InputError, require_count, require_not_negative, require_positive

if TYPE_CHECKING:
    from wdlg.audit import Message, Private, System

MOST_IMAGES = 64
"""In one message; the bounds of more take too long."""

PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")


@click.command()
@option(
    "--model",
    metavar="MODULE:FACTORY",
    required=True,
    help="What makes the model: package.module:factory or file.py:factory, called without arguments.",
)
@option("--image-shape", metavar="C,H,W", required=True, help="Channels, height and width of an image.")
@option("--weights", metavar="FILE", help="State dict to load (weights only: .pt, .safetensors, .npz).")
@option(
    "--mode",
    metavar="evaluation|training",
    default="evaluation",
    help="Of the model: batch statistics in training.",
)
@option("--mean", metavar="M,...", help="By which the model's images are normalised, a number a channel.")
@option("--std", metavar="S,...", help="The same: standard deviations.")
@option(
    "--dataset", metavar="NAME|FILE.npz", help="Private images: a data set, or a sample file of your own."
)
@option(
    "--index",
    type=int,
    multiple=True,
    metavar="I",
    help="Which image of it; give it again for a message of several.  [default: 0]",
)
@option(
    "--images",
    metavar="FOLDER|FILE",
    help="Private images: pictures, of which one message is made; in "
    "folders by class, or with --label for each.",
)
@option(
    "--label", type=int, multiple=True, metavar="L", help="Class of each picture of --images, by their names."
)
@option(
    "--gradient",
    metavar="FILE",
    help="The message as your framework sent it: .npz, .pt or .safetensors.  "
    "[default: what the model would send]",
)
@option(
    "--rename",
    multiple=True,
    metavar="NAME=PARAMETER",
    help="A name in the message that is another in the model.",
)
@option("--partial", is_flag=True, help="Some parameters are not in the message.")
@option("--delta", is_flag=True, help="The message is a change of weights, new less old.")
@option("--learning-rate", type=float, metavar="R", help="Of the participant's gradient descent.")
@option(
    "--local-steps",
    type=int,
    default=1,
    metavar="N",
    help="Steps that a message is of, each on all its images.",
)
@option(
    "--label-smoothing",
    type=float,
    default=0.0,
    metavar="S",
    help="Targets are (1 - S) for the label and S shared by all classes.  [default: 0]",
)
@option(
    "--noise",
    type=float,
    multiple=True,
    metavar="L",
    help="Relative noise level of the bounds.  [default: 0.0001, 0.001, 0.01, 0.1]",
)
@option("--accuracy", type=float, default=0.1, metavar="A", help="To which a direction is to be told.")
@option(
    "--defence",
    multiple=True,
    metavar="NAME,SETTING=VALUE",
    help="Attack again after this defence; see `wdlg attack --help`.",
)
@option("--starts", type=int, default=1, metavar="N", help="Starting points of each optimising attack.")
@option("--evaluations", type=int, default=1000, metavar="N", help="Gradient evaluations of iDLG.")
@option("--report", metavar="OUT.html", help="Write one page with everything, to open in a browser.")
@seed_option
@data_dir_option
@json_option
def audit(
    model: str,
    image_shape: str,
    weights: str | None,
    mode: str,
    mean: str | None,
    std: str | None,
    dataset: str | None,
    index: tuple[int, ...],
    images: str | None,
    label: tuple[int, ...],
    gradient: str | None,
    rename: tuple[str, ...],
    partial: bool,
    delta: bool,
    learning_rate: float | None,
    local_steps: int,
    label_smoothing: float,
    noise: tuple[float, ...],
    accuracy: float,
    defence: tuple[str, ...],
    starts: int,
    evaluations: int,
    report: str | None,
    seed: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Audit a model of your own: what do its messages give away of the images it learns from?

    Example:  wdlg audit --model torchvision.models:squeezenet1_1 --image-shape 3,32,32
    --dataset photographs --report leak.html
    """
    with loading():
        from wdlg.audit import audit as run
        from wdlg.audit import load
        from wdlg.audit.message import sharing_of
        from wdlg.audit.report import as_object, as_text, write_page
        from wdlg.sharing import defences

    shape = _shape(image_shape)
    levels = tuple(require_not_negative("--noise", level) for level in noise) or None
    require_positive("--accuracy", accuracy)
    require_count("--starts", starts, below=101)
    require_count("--evaluations", evaluations, below=10_000_001)
    require_count("--seed", seed, at_least=0, below=2**63)
    against = tuple(_defence(text, defences.parse) for text in defence)
    target = None if report is None else _writable_page(report)
    _require_message_options(gradient, rename, partial, delta, learning_rate)
    system = load(
        model,
        shape,
        weights=weights,
        mode=mode,
        mean=_numbers("--mean", mean),
        deviation=_numbers("--std", std),
        seed=seed,
    )
    private = _private(system, dataset, index, images, label, data_dir)
    sharing = sharing_of(system, local_steps, learning_rate, len(private), label_smoothing)
    message = _message(system, private, sharing, gradient, rename, partial, delta, learning_rate, local_steps)
    found = run(
        system,
        message,
        private,
        accuracy=accuracy,
        defences=against,
        starts=starts,
        evaluations=evaluations,
        seed=seed,
        tell=_teller(),
        **({"levels": levels} if levels else {}),
    )
    click.echo(json_text(as_object(found)) if as_json else as_text(found))
    if target is not None:  # last: if it cannot be written, the result is not lost
        write_page(found, target)
        if not as_json:
            click.echo(f"  report     {target}")


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise InputError(
            f"--image-shape is {text!r}, but must be C,H,W: three whole numbers, such as 3,32,32."
        )
    channels, height, width = map(int, parts)
    return channels, height, width


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(_finite(float(part)) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name} is {text!r}, but must be numbers with commas between them.") from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value


def _defence(text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"--defence {text!r}: {error}") from None


def _writable_page(report: str) -> Path:
    path = Path(report)
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise InputError(f"--report is {report!r}, but must be a file that ends in .html.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--report is {report!r}, but its folder must exist and be writable.")
    return path


def _require_message_options(
    gradient: str | None,
    rename: tuple[str, ...],
    partial: bool,
    delta: bool,
    learning_rate: float | None,
) -> None:
    for name, given in (("--rename", bool(rename)), ("--partial", partial), ("--delta", delta)):
        if given and gradient is None:
            raise InputError(f"{name} is given, but needs --gradient: it says how that file is read.")
    if delta and learning_rate is None:
        raise InputError(
            "--delta is given, but needs --learning-rate: a change of weights is that many gradients."
        )


def _private(
    system: System,
    dataset: str | None,
    index: tuple[int, ...],
    images: str | None,
    label: tuple[int, ...],
    data_dir: str | None,
) -> Private:
    """The private images that the options name."""
    import torch

    from wdlg.audit import private

    if (dataset is None) == (images is None):
        raise InputError("private images must be named by --dataset or by --images, one of the two.")
    if images is not None:
        if index:
            raise InputError(f"--index is {index[0]}, but must be left out when --images is given.")
        return _pictures(system, Path(images), label)
    if label:
        raise InputError(f"--label is {label[0]}, but is allowed only together with --images.")
    from wdlg import data

    assert dataset is not None
    sample = data.read_sample(dataset) if dataset.endswith(".npz") else data.load(dataset, data_dir)
    chosen = [require_count("--index", one, at_least=0, below=len(sample)) for one in index or (0,)]
    require_count("images in the message", len(chosen), below=MOST_IMAGES + 1)
    channels, height, width = system.network.image_shape
    if sample.images.shape[1:] != (height, width, channels):
        came = ",".join(map(str, (sample.images.shape[3], *sample.images.shape[1:3])))
        raise InputError(
            f"--dataset {dataset} has images of shape {came}, but --image-shape is "
            f"{channels},{height},{width}."
        )
    return private(system, sample.tensor(chosen), torch.tensor(sample.labels[chosen]))


def _pictures(system: System, where: Path, label: tuple[int, ...]) -> Private:
    """Pictures of a folder, of folders by class, or one file."""
    import numpy as np
    import torch

    from wdlg import data
    from wdlg.audit import private

    channels, height, width = system.network.image_shape
    if channels not in (1, 3):
        raise InputError(f"--images are pictures of 1 or 3 channels, but --image-shape has {channels}.")
    if not where.exists():
        raise InputError(f"--images is {str(where)!r}, but there is no such folder or file.")
    files = [where] if where.is_file() else _files(where)
    labels = list(label)
    if not files and where.is_dir():
        classes = sorted(one for one in where.iterdir() if one.is_dir())
        pairs = [(file, number) for number, folder in enumerate(classes) for file in _files(folder)]
        if label and pairs:
            raise InputError("--label is given, but the pictures are in folders, which are their classes.")
        files, labels = [file for file, _ in pairs], [number for _, number in pairs]
    if not files:
        raise InputError(f"--images is {str(where)!r}, but it has no pictures ({', '.join(PICTURES)}).")
    require_count("images in the message", len(files), below=MOST_IMAGES + 1)
    if len(labels) != len(files):
        raise InputError(
            f"--label is given {len(labels)} times, but must be given for each of {len(files)} pictures, in "
            "the "
            "order of their names."
        )
    read = np.stack([data.read_image(file, (height, width, channels)) for file in files])
    return private(system, torch.from_numpy(read).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels))


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix.lower() in PICTURES and one.is_file())


def _message(
    system: System,
    private: Private,
    sharing: Any,
    gradient: str | None,
    rename: tuple[str, ...],
    partial: bool,
    delta: bool,
    learning_rate: float | None,
    local_steps: int,
) -> Message:
    from wdlg.audit import made, read
    from wdlg.audit.files import read_tensors
    from wdlg.audit.received import digest_of

    if gradient is None:
        return made(system, private, sharing)
    renamed = {}
    for one in rename:
        old, equals, new = one.partition("=")
        if not equals or not old or not new or old in renamed:
            raise InputError(f"--rename is {one!r}, but must be NAME=PARAMETER, each name once.")
        renamed[old] = new
    return read(
        system,
        private,
        read_tensors(gradient, "message", nested=("gradients", "state_dict", "model_state_dict")),
        sharing,
        digest=digest_of(gradient),
        renamed=renamed,
        partial=partial,
        delta_rate=learning_rate if delta else None,
        steps=local_steps,
    )


def _teller() -> Any:
    """Says on standard error what is done, where somebody looks on."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda what: click.echo(f"... {what}", err=True)
