"""Whether an audit foretells what an attack does: ``python -m benchmarks.audited``, and ``--parts``.

Small networks of seven kinds, each untrained, trained a little and trained on handwritten digits; eight
images of each. Written down before it ran: the prediction is the share of the image's directions that can be
told to within 0.1 at relative noise 1e-6, about ten times the rounding of single precision; the outcome is
whether Levenberg-Marquardt recovers the image (MSE below 0.01) from the better of two starts, by its own
loss. How well the one foretells the other is the area under the ROC curve over all pairs of network and
image, to be 0.9.

That test could not come out either way, as it turned out: the rank was full everywhere (``audited.json``). So
a second one, written down on 28 November 2026 when the first was known and nothing of this one
(``audited-parts.json``). What a message holds differs where only a part of it is sent: the whole gradient,
that of the first layer with weights, or that of the last. Networks of the same kinds from another seed, four
images that were not tried before, prediction and outcome as before, and the same goal of 0.9 for the area
over all triples of network, part and image. A gradient of zero, which is refused, counts as one that
foretells nothing and is not recovered. Beside it, with no goal: the same for a prediction from the spectrum,
the least mean squared error that an unbiased estimate can have at a given relative noise (infinite where the
rank is not full), over all triples and over whole gradients alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from wdlg import audit, data
from wdlg.attacks import Observation, attack
from wdlg.attacks.labels import Known
from wdlg.audit.examples import EXAMPLES
from wdlg.audit.run import levenberg_marquardt
from wdlg.errors import InputError
from wdlg.evaluation import matched, recovered
from wdlg.sharing.federated import FedSGD

STAGES = {"untrained": 0, "trained a little": 1, "trained": 30}
"""Epochs."""

STARTS, NOISE, ACCURACY = 2, 1e-6, 0.1
SHAPE, CLASSES = (1, 8, 8), 10
TRAINING = 1400
"""Images of the sample that networks are trained on."""

FIRST = (("whole",), range(1400, 1408), 0)
"""Parts, private images and seed of the networks of the first study."""

SECOND = (("whole", "first layer", "last layer"), range(1408, 1412), 1)
"""And of the second."""


def trained(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Adam on lots of 32 images."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    stream = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for some in torch.randperm(len(images), generator=stream).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(images[some]), labels[some]).backward()
            optimizer.step()
    model.eval()


def measured(parts: Sequence[str], private: Sequence[int], seed: int) -> dict[str, Any]:
    """A row for each network, part of its gradient and image, and areas under the curve."""
    digits = data.load("digits")
    images, labels = digits.tensor(list(range(len(digits)))), torch.tensor(digits.labels)
    rows = []
    for name, make in EXAMPLES.items():
        for stage, epochs in STAGES.items():
            torch.manual_seed(seed)
            model = make(SHAPE, CLASSES)
            trained(model, images[:TRAINING], labels[:TRAINING], epochs)
            with torch.no_grad():
                right = (model.eval()(images[TRAINING:]).argmax(1) == labels[TRAINING:]).float().mean()
            system = audit.system(model, SHAPE)
            for part in parts:
                for place in private:
                    found = row(system, images[[place]], labels[[place]], part)
                    told = {"network": name, "stage": stage, "accuracy": float(right), "image": place}
                    rows.append({**told, "part": part, **found})
    whole = [one for one in rows if one["part"] == "whole"]
    return {
        "rows": rows,
        "networks": len(EXAMPLES) * len(STAGES),
        "auc": area(rows, [one["predicted"] for one in rows]),
        "auc_spectrum": area(rows, [spectrum(one) for one in rows]),
        "auc_spectrum_whole": area(whole, [spectrum(one) for one in whole]),
        "torch": torch.__version__,
    }


def area(rows: Sequence[dict[str, Any]], score: Sequence[float]) -> float | None:
    """Under the ROC curve; None where all were recovered, or none."""
    won = [one["recovered"] for one in rows]
    return float(roc_auc_score(won, score)) if any(won) and not all(won) else None


def spectrum(one: dict[str, Any]) -> float:
    """The larger the better for the attacker; the same for all without full rank."""
    return -math.log(one["least_mse"]) if one["least_mse"] is not None else -1e9


def sent(system: audit.System, private: audit.Private, part: str) -> audit.Message | None:
    """The gradient, or that of its first or last layer with weights; None if that is zero."""
    message = audit.made(system, private, FedSGD())
    if part == "whole":
        return message if message.size else None
    shapes = {name: parameter.shape for name, parameter in system.model.named_parameters()}
    weighted = [name.rpartition(".")[0] for name, shape in shapes.items() if len(shape) > 1 and "." in name]
    layer = weighted[0 if part == "first layer" else -1]
    held = {
        name: tensor.reshape(shapes[name])
        for name, tensor in zip(system.names, message.gradient.tensors(), strict=True)
        if name.rpartition(".")[0] == layer
    }
    if not any(tensor.any() for tensor in held.values()):
        return None
    return audit.read(system, private, held, FedSGD(), partial=True)


def row(system: audit.System, image: Tensor, label: Tensor, part: str) -> dict[str, Any]:
    """What is foretold of an image, and what an attack makes of it."""
    private = audit.private(system, image, label)
    began = time.perf_counter()
    nothing = {"rank": 0, "directions": 0, "predicted": 0.0, "least_mse": None}
    message = sent(system, private, part)
    if message is None:
        return nothing | {"mse": None, "recovered": False, "seconds_bound": 0.0, "seconds_attack": 0.0}
    try:
        leak = audit.leak(system, message, private)
        told, least = leak.directions(NOISE, ACCURACY)[0], leak.bound(1.0)
        predicted = {
            "rank": leak.rank,
            "directions": told,
            "predicted": told / image.numel(),
            "least_mse": least if least is not None and math.isfinite(least) else None,
        }
    except InputError:
        predicted = nothing
    bounded = time.perf_counter() - began
    seen = Observation(system.network, system.parameters, message.gradient, sharing=message.sharing)
    method = levenberg_marquardt(message, private, Known(tuple(label.tolist())))
    tries = [attack(seen, method, seed=seed) for seed in range(STARTS)]
    best = min(tries, key=lambda one: float(one.best_loss.nan_to_num(nan=torch.inf)))
    error = float(matched(best.best_images[None], image[None].to(best.images))[1])
    return predicted | {
        "mse": error,
        "recovered": bool(recovered(error)),
        "seconds_bound": bounded,
        "seconds_attack": time.perf_counter() - began - bounded,
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--parts", is_flag=True, help="The second study: the whole gradient, and single layers.")
def main(parts: bool) -> None:
    """Measure, and write the result as JSON beside this file."""
    torch.set_num_threads(1)
    name = "audited-parts.json" if parts else "audited.json"
    found = measured(*(SECOND if parts else FIRST))
    (Path(__file__).parent / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
