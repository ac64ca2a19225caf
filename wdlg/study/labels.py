"""The analytic label rules on many gradients: how often they are right, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from tqdm import tqdm

from wdlg.attacks import labels
from wdlg.data import Sample
from wdlg.errors import require_choice, require_count
from wdlg.networks.initial import BOUND, DISTRIBUTIONS
from wdlg.networks.registry import Architecture, architecture
from wdlg.sharing import defences
from wdlg.sharing.defences import Defence
from wdlg.study.cases import generator
from wdlg.updates.gradient import Gradient

if TYPE_CHECKING:
    import pandas as pd

TIMED_CALLS = 3

PRECISIONS = ("float32", "float64")
"""Of networks and their gradients; the first if none is chosen."""

RULES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Gradient], Tensor]]] = {
    "bias_sign": (labels.bias_sign, lambda gradient: gradient.bias),
    "bias_min": (labels.bias_min, lambda gradient: gradient.bias),
    "row_sum": (labels.row_sum, lambda gradient: gradient.last_weight),
}
"""Each analytic rule with the part of the gradient that it reads, written out as the attacker gets it."""


def compare_rules(
    sample: Sample,
    *,
    images: int,
    network: str | Mapping[str, Any] | Architecture = "lenet",
    activation: str | None = None,
    initial: str | None = None,
    seed: int = 0,
    classes: int | None = None,
    bound: float = BOUND,
    dtype: str = PRECISIONS[0],
    rules: Sequence[str] = ("bias_sign", "row_sum"),
    defence: Defence | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Analytic rules on the gradient of each image, each in a new untrained network.

    Args:
        sample: private images; the draw goes round again when it asks for more than there are.
        images: how many gradients.
        network, activation, initial: of the networks, as in :class:`~wdlg.study.cases.Design`.
        seed: decides images and networks.
        classes: output units; None for the sample's own number.
        bound: half width of the uniform initial weights.
        dtype: precision of networks and gradients, "float32" or "float64".
        rules: names of the rules, those of WDLG and iDLG if not given.
        defence: what is done to each gradient before a rule reads it.
        progress: show a bar.

    Returns:
        One row for each rule and gradient: rule, image, label_true, label_recovered (-1 undecided), correct,
        undecided, steps, seconds, largest_bias_gradient (its absolute value). With a defence also
        relative_error and cosine of what is sent to the exact gradient.
    """
    for name in rules:
        require_choice("rules", name, RULES)
    require_count("images", images)
    require_count("seed", seed, at_least=0)
    precision: torch.dtype = getattr(torch, require_choice("dtype", dtype, PRECISIONS))
    if initial is not None:
        require_choice("initial", initial, DISTRIBUTIONS)
    height, width, channels = sample.images.shape[1:]
    form = architecture(network)
    drawn = form.build(
        (channels, height, width), sample.num_classes if classes is None else classes, activation
    )
    order = torch.randperm(len(sample), generator=generator(seed, "image order"))
    rows = []
    for number in tqdm(range(images), desc=sample.name, unit="gradient", disable=not progress):
        image = int(order[number % len(order)])
        truth = int(sample.labels[image])
        parameters = drawn.initial_parameters(
            generator=generator(seed, "network", number),
            distribution=form.initial(initial),
            bound=bound,
            dtype=precision,
        )
        target = F.one_hot(torch.tensor([truth]), drawn.classes).to(precision)
        gradient = drawn.gradient(parameters, sample.tensor([image], dtype=precision), target)
        price: dict[str, float] = {}
        if defence is not None:
            exact, gradient = gradient, defence(gradient, [generator(seed, "defence", number)])
            price["relative_error"] = defences.relative_error(gradient, exact).item()
            price["cosine"] = defences.cosine(gradient, exact).item()
        for name in rules:
            rule, part = RULES[name]
            read = part(gradient)
            label = int(rule(read))
            rows.append(
                {
                    "rule": name,
                    "image": image,
                    "label_true": truth,
                    "label_recovered": label,
                    "correct": label == truth,
                    "undecided": label == labels.UNDECIDED,
                    "steps": labels.label_rule(name).steps(classes=drawn.classes, features=drawn.features),
                    "seconds": _shortest(rule, read),
                    "largest_bias_gradient": gradient.bias.abs().max().item(),
                    **price,
                }
            )
    import pandas as pd

    return pd.DataFrame(rows)


def _shortest(rule: Callable[[Tensor], Tensor], read: Tensor) -> float:
    """Seconds that a rule takes on a gradient in memory: the shortest of a few calls."""
    times = []
    for _ in range(TIMED_CALLS):
        started = time.perf_counter()
        rule(read)
        times.append(time.perf_counter() - started)
    return min(times)


def summarise(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Accuracy, undecided (count), steps and seconds (mean for one gradient) of each rule.

    An undecided gradient counts as not recovered.
    """
    return {
        str(rule): {
            "images": len(rows),
            "accuracy": float(rows["correct"].mean()),
            "undecided": int(rows["undecided"].sum()),
            "steps": int(rows["steps"].iloc[0]),
            "seconds": float(rows["seconds"].mean()),
        }
        for rule, rows in table.groupby("rule", sort=True)
    }
