"""An audit told: as one object for JSON, as a short text, and as one page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from wdlg.audit.run import Attempt, Audit
from wdlg.errors import InputError
from wdlg.figures.bounds import directions, directions_by_noise
from wdlg.sharing.federated import FedAvg

ENOUGH = 0.01
"""The mean squared error from which on a picture is taken for not recovered."""

NIST = "a privacy attack, data reconstruction"
SOK = {"B": "Informed Eavesdropper", "C": "Parameter-Aware Eavesdropper"}
"""Threat models of Carletti et al. (2025): it knows the basics, or training in detail."""


def as_object(audit: Audit) -> dict[str, Any]:
    """All that was found, of plain types; a number that is not finite stays one."""
    system, message, found = audit.system, audit.message, audit.leak
    limits = found.limits
    local = isinstance(message.rounds, FedAvg)
    in_detail = local or message.smoothing > 0
    knows = [
        *(["the learning rate", "the local steps"] if local else []),
        *(["how labels are smoothed"] if message.smoothing else []),
    ]
    return {
        "system": {
            "title": system.title,
            "architecture": type(system.model).__name__,
            "parameters": sum(parameter.numel() for parameter in system.model.parameters()),
            "weights_sha256": audit.weights_digest,
            "precision": str(system.parameters.tensors[0].dtype).removeprefix("torch."),
            "mode": system.network.mode,
            "image_shape": list(system.network.image_shape),
            "classes": system.classes,
            "one_score": system.one_score,
            "linear_output": system.own_output,
            "normalisation": None
            if system.normalisation is None
            else {"mean": list(system.normalisation[0]), "std": list(system.normalisation[1])},
        },
        "message": {
            "kind": "change of weights" if local else "gradient",
            "local_steps": message.rounds.steps if isinstance(message.rounds, FedAvg) else 1,
            "learning_rate": message.rounds.rate if isinstance(message.rounds, FedAvg) else None,
            "label_smoothing": message.smoothing,
            "images": len(audit.private),
            "entries": message.entries,
            "norm": message.size,
            "sent": [name for name, sent in zip(system.names, message.sent, strict=False) if sent],
            "sha256": message.digest,
            "notes": list(message.notes),
        },
        "attacker": {
            "description": "An honest-but-curious server, or somebody who listens in: it follows the "
            "protocol, sees one message of one participant, and knows the model, its weights, the number "
            "of images" + (f", {' and '.join(knows)}." if knows else "."),
            "nist": NIST,
            "sok": "C" if in_detail else "B",
            "sok_name": SOK["C" if in_detail else "B"],
        },
        "labels": {
            "rule": audit.labels.rule,
            "read": list(audit.labels.read),
            "true": list(audit.labels.true),
            "leaked": audit.labels.leaked,
            "note": audit.labels.note,
        },
        "pixels": found.pixels,
        "rank": found.rank,
        "estimated": limits is None,
        "accuracy": audit.accuracy,
        "directions": {f"{level:g}": found.directions(level, audit.accuracy)[0] for level in audit.levels},
        "bound": {
            "constant": None if limits is None else limits.constant,
            "levels": [
                {
                    "level": level,
                    "directions": found.directions(level, audit.accuracy)[0],
                    "directions_at_most": found.directions(level, audit.accuracy)[1],
                    "mse": found.bound(level),
                }
                for level in audit.levels
            ],
            "mse": ENOUGH,
            "level_for_mse": None if limits is None else limits.level_for(ENOUGH),
        },
        "layers": [
            {
                "name": layer.name,
                "entries": layer.entries,
                "rank": layer.rank,
                "directions": {
                    f"{level:g}": layer.directions(audit.leak.deviation(level), audit.accuracy)
                    for level in audit.levels
                },
            }
            for layer in audit.leak.layers
        ],
        "attacks": [_told(one) for one in audit.attempts],
        "left_out": list(audit.left_out),
        "defences": [
            {
                "name": one.name,
                "relative_error": one.relative_error,
                "label_leaked": one.label_leaked,
                "bound": one.bound,
                "mse": list(min(one.attempts, key=lambda attempt: max(attempt.mse)).mse),
                "attacks": [_told(attempt) for attempt in one.attempts],
            }
            for one in audit.defended
        ],
        "verdict": verdict(audit),
        "limits": _not_said(audit),
        "versions": {
            "wdlg": version("wdlg"),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "seed": audit.seed,
        "seconds": audit.seconds,
    }


def verdict(audit: Audit) -> str:
    """What a practitioner takes away, in units."""
    found, best = audit.leak, audit.best
    level = audit.levels[len(audit.levels) // 2]
    told, most = found.directions(level, audit.accuracy)
    whose = "the image" if len(audit.private) == 1 else f"the {len(audit.private)} images"
    if found.rank is None:
        parts = [
            f"At noise of {level:g} of the gradient between {told:,} and {most:,} of {found.pixels:,} "
            "directions "
            f"of {whose} can be told to within ±{audit.accuracy:g}."
        ]
    else:
        parts = [
            f"The message holds {found.rank:,} of {found.pixels:,} directions of {whose}; at noise of "
            f"{level:g} "
            f"of the gradient {told:,} can be told to within ±{audit.accuracy:g}."
        ]
    if audit.labels.leaked:
        parts.append("The label is read off." if len(audit.private) == 1 else "The labels are read off.")
    elif audit.labels.rule == "none":
        parts.append("No rule reads the label.")
    if best is not None:
        won = [one for one in audit.attempts if one.succeeded]
        parts.append(
            f"{len(won)} of {len(audit.attempts)} attacks recovered it; the best is {best.attack} with a "
            "mean "
            f"squared error of {_number(max(best.mse))}."
        )
        if not won and found.rank == found.pixels:
            parts.append("That no attack did is no protection: the image follows from the message.")
    return " ".join(parts)


def _not_said(audit: Audit) -> list[str]:
    sentences = [
        "The bounds hold at these images and weights, to first order, and for attackers who are unbiased: "
        "one who "
        "knows what images look like can do better at high noise.",
        "Directions that the message does not hold can still be guessed by such an attacker.",
        "That an attack failed says nothing of other attacks; a rank below the number of values does.",
        "One message was looked at: several of one participant add up.",
    ]
    if audit.system.frozen.count(True):
        sentences.append("Frozen parameters are taken for known and not sent.")
    if audit.leak.limits is None:
        sentences.append(
            "The model or the images are too large for the whole Jacobian: directions are estimated from "
            "random "
            "ones, and the standard error covers the choice of these alone."
        )
    return sentences


def as_text(audit: Audit) -> str:
    """A few lines for a terminal."""
    found = as_object(audit)
    lines = [
        f"{found['system']['title']}: {found['message']['entries']:,} entries sent, {found['pixels']:,} "
        "values of "
        f"{found['message']['images']} image(s)",
        f"  labels     {_label_sentence(audit)}",
        "  rank       not computed: directions are bounded from random ones"
        if found["estimated"]
        else f"  rank       {found['rank']:,} of {found['pixels']:,} directions are in the message",
    ]
    for row in found["bound"]["levels"]:
        most = f" to {row['directions_at_most']:,}" if found["estimated"] else ""
        mse = "" if found["estimated"] else f", MSE {_number(row['mse'])} at least"
        lines.append(
            f"  noise {row['level']:<7g} {row['directions']:,}{most} directions to within "
            f"{audit.accuracy:g}{mse}"
        )
    lines += [
        f"  layer      {layer['name']}: rank {layer['rank']}, "
        + ", ".join(f"{count} at {level}" for level, count in layer["directions"].items())
        for layer in found["layers"]
    ]
    for one in audit.attempts:
        lines.append(
            f"  attack     {one.attack}: {one.status}, MSE {', '.join(map(_number, one.mse))}, "
            f"{one.seconds:.1f} s"
        )
    lines += [f"  not run    {sentence}" for sentence in audit.left_out]
    for row in found["defences"]:
        attack, error = row["attacks"][0]["attack"], ", ".join(map(_number, row["mse"]))
        lines.append(f"  defence    {row['name']}: MSE {error}, attack: {attack}")
    lines += [f"  note       {note}" for note in audit.message.notes]
    lines.append(f"  {found['verdict']}")
    return "\n".join(lines)


def as_page(audit: Audit) -> str:
    """One page of HTML with everything in it."""
    found = as_object(audit)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = _number
    template = environment.from_string((Path(__file__).parent / "report.html").read_text("utf-8"))
    return template.render(
        r=found,
        number=_number,
        facts=_facts(found),
        label_sentence=_label_sentence(audit),
        enough=_enough(audit),
        curve=_curve(audit),
        first_last=_first_last(audit),
        pictures=_pictures(audit),
        versions=[*found["versions"].items(), ("seed", audit.seed), ("seconds", f"{audit.seconds:.1f}")],
    )


def write_page(audit: Audit, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    text = as_page(audit)
    try:
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"--report is {str(path)!r}, but writing it failed ({error.strerror or error})."
        ) from None


def _told(one: Attempt) -> dict[str, Any]:
    return {
        "attack": one.attack,
        "start": one.start,
        "status": one.status,
        "evaluations": one.evaluations,
        "seconds": one.seconds,
        "mse": list(one.mse),
        "psnr": list(one.psnr),
        "recovered": one.succeeded,
    }


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "none"
    return ("-" if value < 0 else "") + "infinite" if math.isinf(value) else f"{value:.2g}"


def _label_sentence(audit: Audit) -> str:
    labels = audit.labels
    if not labels.read:
        return "The labels were not read off the message."
    read, true = (", ".join(map(str, some)) for some in (labels.read, labels.true))
    if labels.leaked:
        return (
            f"The label {true} was read off the message."
            if len(labels.true) == 1
            else (f"The labels {true} were read off the message.")
        )
    return f"Read off the message was {read}, but true is {true}."


def _enough(audit: Audit) -> str:
    limits = audit.leak.limits
    if limits is None:
        return "The model or the images are too large for bounds of the error."
    level = limits.level_for(ENOUGH)
    if not level:
        return (
            f"Without any noise no unbiased attack reaches a mean squared error of {ENOUGH:g}: some "
            "directions are "
            "not in the message."
        )
    return (
        f"From noise of {level:.2g} of the gradient on no unbiased attack reaches a mean squared error of "
        f"{ENOUGH:g}."
    )


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    system, message = found["system"], found["message"]
    scores = "one score" if system["one_score"] else f"{system['classes']} classes"
    facts = [
        (
            "Model",
            f"{system['architecture']} ({system['title']}), {system['parameters']:,} parameters in "
            f"{system['precision']}, {scores}, images {system['image_shape']}, {system['mode']} mode",
        ),
        ("SHA-256 of its weights", system["weights_sha256"]),
        (
            "Message",
            f"{message['kind']} of {message['images']} image(s) after {message['local_steps']} step(s), "
            f"{message['entries']:,} entries, norm {message['norm']:.3g}",
        ),
    ]
    if message["label_smoothing"]:
        facts.append(("Labels are smoothed", f"by {message['label_smoothing']:g}"))
    if system["normalisation"]:
        facts.append(
            (
                "Images are normalised",
                f"mean {system['normalisation']['mean']}, standard deviation "
                f"{system['normalisation']['std']}",
            )
        )
    if message["sha256"]:
        facts.append(("SHA-256 of the message's file", message["sha256"]))
    facts += [("Note", note) for note in message["notes"]]
    return facts


def _curve(audit: Audit) -> dict[str, str]:
    found = audit.leak
    levels = np.geomspace(1e-6, 10, 57)
    both = [found.directions(float(level), audit.accuracy) for level in levels]
    counts, most = [low for low, _ in both], [high for _, high in both]
    whole = next((one for one, low in zip(levels, counts, strict=True) if low < 0.99 * counts[0]), levels[-1])
    none = next((one for one, high in zip(levels, most, strict=True) if not high), None)
    least = "at least " if found.limits is None else ""
    text = (
        f"Directions of {found.pixels:,} that can be told to within ±{audit.accuracy:g}, by noise: {least}"
        f"{counts[0]:,} with hardly any, fewer than 99 % of these from about {whole:.0e} of the gradient on"
        + (f", and from about {none:.0e} on none." if none is not None else ".")
    )
    curve = directions_by_noise(levels.tolist(), counts, found.pixels, None if counts == most else most)
    return {"source": _as_uri(curve), "text": text}


def _first_last(audit: Audit) -> dict[str, str] | None:
    """Directions as pictures; None where there are no limits, or the images are no pictures."""
    limits = audit.leak.limits
    if limits is None or limits.image_shape[0] not in (1, 3):
        return None
    vectors = limits.vectors[: limits.rank]
    if vectors.ndim == 5:  # of several images the first is shown
        vectors = vectors[:, 0]
    level = audit.levels[len(audit.levels) // 2]
    text = (
        "Directions that leak first, above, and last of those in the message, below: grey is no change. "
        "Under "
        f"each the standard deviation that noise of {level:g} leaves of it."
    )
    each = min(3, max(1, limits.rank // 2))
    figure = directions(vectors.numpy(), limits.deviations(level)[: limits.rank].tolist(), each=each)
    return {"source": _as_uri(figure), "text": text}


def _pictures(audit: Audit) -> list[dict[str, str]]:
    shown: list[dict[str, str]] = []
    truth = audit.private.images.float().numpy()
    tried: dict[str, Attempt] = {}
    for one in audit.attempts:
        if one.attack not in tried or max(one.mse) < max(tried[one.attack].mse):
            tried[one.attack] = one
    several = len(truth) > 1
    for place, image in enumerate(truth):
        number = f" {place + 1}" if several else ""
        shown.append({"source": _picture(image), "text": f"Private image{number}"})
        for name, one in tried.items():
            ended = "recovered" if one.mse[place] < ENOUGH else "not recovered"
            shown.append(
                {
                    "source": _picture(one.images[place]),
                    "text": f"{name}{number}: {ended}, MSE {_number(one.mse[place])}",
                }
            )
        for defended in audit.defended:
            best = min(defended.attempts, key=lambda attempt: max(attempt.mse))
            shown.append(
                {
                    "source": _picture(best.images[place]),
                    "text": f"{best.attack}{number} after {defended.name}: MSE {_number(best.mse[place])}",
                }
            )
    return shown


def _picture(image: np.ndarray) -> str:
    """A PNG of an image (C, H, W), as an address that holds it."""
    values = np.round(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    array = values.transpose(1, 2, 0)
    if array.shape[2] not in (1, 3):  # no picture a viewer knows: its channels' mean
        array = array.mean(2, keepdims=True).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array).save(buffer, format="PNG")
    return _address(buffer)


def _as_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return _address(buffer)


def _address(buffer: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
