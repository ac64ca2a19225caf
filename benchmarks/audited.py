"""Whether an audit foretells what an attack does: ``python -m benchmarks.audited``.

Small networks of seven kinds, each untrained, trained a little and trained on handwritten digits; eight
images of each. Written down before it ran: the prediction is the share of the image's directions that can be
told to within 0.1 at relative noise 1e-6, about ten times the rounding of single precision; the outcome is
whether Levenberg-Marquardt recovers the image (MSE below 0.01) from the better of two starts, by its own
loss. How well the one foretells the other is the area under the ROC curve over all pairs of network and
image, to be 0.9.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
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

IMAGES, STARTS, NOISE, ACCURACY = 8, 2, 1e-6, 0.1
SHAPE, CLASSES = (1, 8, 8), 10


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


def measured() -> dict[str, Any]:
    """A row for each network and image, and the area under the curve."""
    digits = data.load("digits")
    images, labels = digits.tensor(list(range(len(digits)))), torch.tensor(digits.labels)
    known, private = slice(0, 1400), list(range(1400, 1400 + IMAGES))
    rows = []
    for name, make in EXAMPLES.items():
        for stage, epochs in STAGES.items():
            torch.manual_seed(0)
            model = make(SHAPE, CLASSES)
            trained(model, images[known], labels[known], epochs)
            with torch.no_grad():
                right = (model.eval()(images[1400:]).argmax(1) == labels[1400:]).float().mean()
            system = audit.system(model, SHAPE)
            for place in private:
                rows.append(row(system, images[[place]], labels[[place]], name, stage, float(right), place))
    won = np.array([one["recovered"] for one in rows])
    score = np.array([one["predicted"] for one in rows])
    both = 0 < won.sum() < len(won)
    return {
        "rows": rows,
        "networks": len(EXAMPLES) * len(STAGES),
        "auc": float(roc_auc_score(won, score)) if both else None,
        "torch": torch.__version__,
    }


def row(
    system: audit.System, image: Tensor, label: Tensor, name: str, stage: str, right: float, place: int
) -> dict[str, Any]:
    """What is foretold of an image, and what an attack makes of it."""
    private = audit.private(system, image, label)
    message = audit.made(system, private, FedSGD())
    began = time.perf_counter()
    try:
        leak = audit.leak(system, message, private)
        rank, told = leak.rank, leak.directions(NOISE, ACCURACY)[0]
    except InputError:  # a gradient of zero: the network is sure of the label
        rank, told = 0, 0
    bounded = time.perf_counter() - began
    seen = Observation(system.network, system.parameters, message.gradient)
    method = levenberg_marquardt(message, private, Known(tuple(label.tolist())))
    tries = [attack(seen, method, seed=seed) for seed in range(STARTS)]
    best = min(tries, key=lambda one: float(one.best_loss.nan_to_num(nan=torch.inf)))
    error = float(matched(best.best_images[None], image[None].to(best.images))[1])
    return {
        "network": name,
        "stage": stage,
        "accuracy": right,
        "image": place,
        "rank": rank,
        "directions": told,
        "predicted": told / image.numel(),
        "mse": error,
        "recovered": bool(recovered(error)),
        "seconds_bound": bounded,
        "seconds_attack": time.perf_counter() - began - bounded,
    }


def main(path: Path) -> None:
    """Measure, and write the result as JSON."""
    torch.set_num_threads(1)
    path.write_text(json.dumps(measured(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / "audited.json")
