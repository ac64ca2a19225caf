"""What a defence costs and buys: the accuracy of networks that are trained under it, and what still leaks.

For each entry of :data:`OFFERS` and each seed one network is trained (:mod:`wdlg.training.rounds`), and
tested on images that were not trained on. One message of a participant whose image belongs to neither is then
attacked twice: as it is sent by the untrained and by the trained network. The attacker knows defence and
label. Who sees only a sum is taken to know all messages in it but one, as differential privacy does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wdlg.attacks.base import Observation
from wdlg.attacks.exact import invert
from wdlg.attacks.labels import BiasMin
from wdlg.attacks.most_likely import MostLikely, with_bias
from wdlg.attacks.most_probable import NormalPrior
from wdlg.data import Sample
from wdlg.errors import InputError
from wdlg.evaluation import recovered
from wdlg.limits import RANK_TOLERANCE, epsilon, limits
from wdlg.networks import LeNet, Network, Parameters
from wdlg.networks.jacobian import derivatives, inner_products
from wdlg.sharing.defences import (
    ClippedNoise,
    Defence,
    LaplaceNoise,
    Noise,
    NoOutputBias,
    Pruning,
    Quantisation,
    Rounding,
    title,
)
from wdlg.sharing.federated import FedAvg, FedSGD
from wdlg.training import SecureSum, Training, accuracy, privacy_loss, train
from wdlg.updates.distance import norm

ATTACKED = 20
"""The first images of a sample, of which private ones are taken."""

TRAINED = slice(200, 1000)
"""Those that are trained on. All others but the attacked ones are held out."""

DELTA = 1e-3
"""Of the epsilons: about one in 800, the number of images trained on."""

FEW_PIXELS, MOST_PIXELS = 300, 1024
"""Up to the first several starts are tried; a message with more than the second is not attacked here, since
one step would take minutes."""

PLAIN_ENOUGH = 1e-3
"""Where a picture has this MSE without a prior, none is tried: there is nothing left for it to do."""


@dataclass(frozen=True)
class Split:
    """Images for training, for testing and to be private; no image is in two.

    Attributes:
        training, held_out, private: images (N, channels, height, width) and labels (N,) each.
    """

    training: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    private: tuple[Tensor, Tensor]


def split(sample: Sample) -> Split:
    """The fixed split of a sample.

    Raises:
        InputError: the sample has too few images.
    """
    if len(sample) < TRAINED.stop:
        raise InputError(
            f"sample {sample.name} holds {len(sample)} images, but training needs at least {TRAINED.stop}."
        )
    places = np.arange(len(sample))
    trained = (places >= TRAINED.start) & (places < TRAINED.stop)
    parts = (places[trained], places[~trained & (places >= ATTACKED)], places[:ATTACKED])
    return Split(*((sample.tensor(some), torch.from_numpy(sample.labels[some])) for some in parts))


def offers() -> dict[str, Training]:
    """What a participant may choose from, by name."""
    plain = Training()
    changed: dict[str, Any] = {"none": {}}
    defences: Sequence[Defence] = (
        *(Noise(level) for level in (0.1, 1.0, 10.0)),
        *(LaplaceNoise(level) for level in (0.1, 1.0, 10.0)),
        *(ClippedNoise(1.0, multiplier) for multiplier in (0.01, 0.1)),
        *(Pruning(share) for share in (0.5, 0.9, 0.99)),
        Rounding("bfloat16"),
        Quantisation(8),
        Quantisation(4, stochastic=True),
        Quantisation(2, stochastic=True),
        NoOutputBias(),
    )
    changed |= {title(defence): {"defence": defence} for defence in defences}
    changed |= {
        f"dp_sgd,clip=1,multiplier={multiplier:g}": {"defence": SecureSum(1.0, multiplier)}
        for multiplier in (0.5, 1.0, 2.0)
    }
    changed["local_steps,steps=5"] = {"sharing": FedAvg(plain.rate / 5, 5)}
    changed["batch,images=4"] = {"images": 4}
    changed["secure_sum"] = {"defence": SecureSum()}
    return {name: replace(plain, **change) for name, change in changed.items()}


OFFERS = offers()
"""Trainings by the name of what is done: that of a defence with its settings, as
:func:`wdlg.sharing.defences.title` writes it, or ``dp_sgd``, ``local_steps``, ``batch`` or ``secure_sum``."""


RATES = {"fashion_mnist": 0.1}
"""Learning rates of data sets that need another than all others. By a rule: of 0.05, 0.1, 0.2 and 0.5 the one
with the highest mean accuracy without a defence, of three networks trained on the first 640 of the training
images and tested on the rest of them. It is 0.5 for digits and MNIST; with it Fashion-MNIST diverges."""


def training_of(name: str, dataset: str) -> Training:
    """An offer for a data set, with its learning rate; local steps together are as long as one."""
    training = OFFERS[name]
    rate = RATES.get(dataset, training.rate)
    sharing = training.sharing
    if isinstance(sharing, FedAvg):
        sharing = replace(sharing, rate=rate / sharing.steps)
    return replace(training, rate=rate, sharing=sharing)


def epsilon_of(training: Training, count: int) -> tuple[float, str]:
    """Epsilon of a training on so many images, and the sentence that belongs to it; NaN where there is none.

    Noise that each participant adds to its own clipped message protects from whoever sees the messages. That
    a participant was chosen by lot is no secret there, so its messages add up without a gain from sampling:
    k of them with a multiplier m are one with ``m / sqrt(k)``, exactly.
    """
    steps, rate = training.rounds(count), training.sample_rate(count)
    match training.defence:
        case SecureSum(_, multiplier) if multiplier:
            loss = privacy_loss(multiplier, rate, steps, DELTA)
            return loss.prv, loss.statement()
        case ClippedNoise(_, multiplier) if multiplier:
            value = epsilon(multiplier / math.sqrt(training.epochs), DELTA)
            return value, (
                f"epsilon = {value:,.0f} (exact) at delta = {DELTA:g}, for adding or removing one "
                f"participant, who sends {training.epochs} messages, the mean number, each with noise of its "
                f"own and seen by the server; multiplier {multiplier:g}; choosing settings by trying several "
                "trainings is not included."
            )
    return math.nan, ""


def trained(sample: Sample, training: Training, seed: int) -> tuple[LeNet, Parameters, Parameters | None]:
    """A LeNet with tanh, its weights before (torch's default) and after training on a sample.

    None after a training that diverged.
    """
    images, labels = split(sample).training
    _, channels, height, width = images.shape
    network = LeNet((channels, height, width), sample.num_classes, activation="tanh")
    before = network.initial_parameters(generator=_stream(seed, "network"), distribution="torch")
    try:
        after = train(training, network, before, images, labels, generator=_stream(seed, "training"))
    except InputError:  # what a defence makes of it, or the weights, is no number any more
        return network, before, None
    return network, before, after


def _stream(seed: int, what: str) -> torch.Generator:
    """Of one draw: the same seed gives all offers the same untrained network."""
    place = ("network", "training", "defence").index(what)
    sequence = np.random.SeedSequence(seed, spawn_key=(place,))
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


def measure(sample: Sample, name: str, seed: int, *, attacked: bool = True) -> dict[str, Any]:
    """Accuracy of one network that is trained under an offer, and what leaks from it.

    Args:
        sample: of at least 1,000 images.
        name: of one of :data:`OFFERS`.
        seed: of network, training and defence; it also chooses the private image.
        attacked: also attack, which takes most of the time.

    Returns:
        A row of a table: dataset, offer, seed, accuracy (that of guessing if the training diverged), epsilon,
        statement, seconds, and ``leaks``: a list of what :func:`leak` says for the untrained and for the
        trained network.
    """
    started = time.perf_counter()
    training, parts = training_of(name, sample.name), split(sample)
    network, before, after = trained(sample, training, seed)
    value, statement = epsilon_of(training, len(parts.training[0]))
    row: dict[str, Any] = {
        "dataset": sample.name,
        "offer": name,
        "seed": seed,
        "accuracy": 1 / network.classes if after is None else accuracy(network, after, *parts.held_out),
        "epsilon": value,
        "statement": statement,
        "leaks": [],
    }
    if attacked and training.defence != SecureSum():
        prior = NormalPrior.of(parts.training[0])
        place = slice(training.images * seed, training.images * (seed + 1))
        private = tuple(one[place] for one in parts.private)
        for moment, weights in (("untrained", before), ("trained", after)):
            if weights is None:
                continue
            stream = _stream(seed, "defence")
            found = leak(training, network, weights, *private, prior=prior, stream=stream)
            row["leaks"].append({"moment": moment, **found})
    return row | {"seconds": time.perf_counter() - started}


FAMILIES = (
    *("none", "noise", "laplace_noise", "clipped_noise", "dp_sgd", "pruning", "rounding", "quantisation"),
    *("no_output_bias", "local_steps", "batch", "secure_sum"),
)
"""What stands before the settings in the name of an offer."""

NOISY = ("noise", "laplace_noise", "clipped_noise", "dp_sgd")
"""Those of them that have a bound; where JSON has none, no unbiased estimate exists."""


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What participants can decide by: a line for each data set and offer.

    Columns: dataset, offer, family; accuracy, the mean over seeds, with lowest and highest, and seeds;
    epsilon (NaN where there is none); then of attacks: messages that were attacked; recovered, how many had a
    picture with success; untrained and trained, the median MSE of the better picture of each message, with
    and without prior; leak, the smaller of these two; bound, the median over the messages of that network;
    directions, the median share of directions that are known; variance, of the prior. NaN where nothing was
    attacked.

    Args:
        rows: of :func:`measure`, also as JSON holds them, with None for NaN.
    """
    found = []
    names = {(row["dataset"], row["offer"]): None for row in rows}
    for dataset, offer in names:
        some = [row for row in rows if (row["dataset"], row["offer"]) == (dataset, offer)]
        accuracies = [row["accuracy"] for row in some]
        leaks = [leak for row in some for leak in row["leaks"] if leak["pixels"] <= MOST_PIXELS]
        line: dict[str, Any] = {
            "dataset": dataset,
            "offer": offer,
            "family": offer.partition(",")[0],
            "accuracy": float(np.mean(accuracies)),
            "lowest": min(accuracies),
            "highest": max(accuracies),
            "seeds": len(some),
            "epsilon": _number(some[0]["epsilon"]),
            "messages": len(leaks),
            "recovered": sum(bool(recovered(_best(leak))) for leak in leaks),
            "bound": math.nan,
            "directions": math.nan,
        }
        of_moment = {
            moment: [leak for leak in leaks if leak["moment"] == moment]
            for moment in ("untrained", "trained")
        }
        for moment, those in of_moment.items():
            line[moment] = float(np.median([_best(leak) for leak in those])) if those else math.nan
        known = [line[moment] for moment in of_moment if not math.isnan(line[moment])]
        line["leak"] = min(known, default=math.nan)
        worst = of_moment["untrained" if line["leak"] == line["untrained"] else "trained"]
        if worst:
            none = math.inf if line["family"] in NOISY else math.nan
            line["bound"] = float(np.median([_number(leak["bound"], none) for leak in worst]))
            shares = [leak["directions"] / leak["pixels"] for leak in worst if leak["directions"] >= 0]
            line["directions"] = float(np.median(shares)) if shares else math.nan
            line["variance"] = worst[0]["variance"]
        found.append(line)
    return pd.DataFrame(found)


CHEAP, USEFUL = 0.02, 0.5
"""A defence is cheap if it costs less than this accuracy, and a network useful if it is right more often."""


def by_dataset(lines: pd.DataFrame) -> pd.DataFrame:
    """How many defences are cheap, how many of these gave an image away, and how many hide and stay useful.

    Args:
        lines: of :func:`table`, with one for the offer "none" of each data set.

    Returns:
        A row for each data set: dataset, accuracy without a defence, defences that were attacked, cheap,
        cheap_seen (of these, with at least one image recovered), hiding (none recovered, and useful).
    """
    found = []
    for dataset, some in lines.groupby("dataset", sort=False):
        plain = float(some.loc[some["offer"] == "none", "accuracy"].iloc[0])
        tried = some[some["leak"].notna() & (some["offer"] != "none")]
        cheap = tried[tried["accuracy"] > plain - CHEAP]
        hiding = tried[(tried["recovered"] == 0) & (tried["accuracy"] > USEFUL)]
        found.append(
            (dataset, plain, len(tried), len(cheap), int((cheap["recovered"] > 0).sum()), len(hiding))
        )
    return pd.DataFrame(found, columns=["dataset", "accuracy", "defences", "cheap", "cheap_seen", "hiding"])


def _best(leak: Mapping[str, Any]) -> float:
    """MSE of the better picture; infinite where no attack brought one."""
    return min(_number(leak[one], math.inf) for one in ("likely", "probable"))


def _number(value: float | None, missing: float = math.nan) -> float:
    return missing if value is None else value


def leak(
    training: Training,
    network: Network,
    parameters: Parameters,
    images: Tensor,
    labels: Tensor,
    *,
    prior: NormalPrior,
    stream: torch.Generator,
) -> dict[str, Any]:
    """What one message gives away.

    Args:
        training: how messages are made.
        network, parameters: N = 1.
        images: of the participant, (images, channels, height, width), float32.
        labels: (images,).
        prior: of such images, known to the attacker.
        stream: of what the defence draws.

    Returns:
        A table with

        - pixels: of all images.
        - relative_error: of the message.
        - bound: the least MSE of an unbiased estimate; NaN without noise, infinite where there is none.
        - directions: of the images that can be told to within 0.1; without noise those that the entries
          hold at all; -1 where not computed.
        - likely, probable: MSE of the most likely picture, and of that with the prior; NaN where not tried.
        - variance: that of the prior, about the MSE of who guesses.
    """
    defence = training.defence
    if isinstance(defence, SecureSum):
        defence = ClippedNoise(defence.clip, defence.multiplier)
    pixels = images.numel()
    several = training.images > 1
    given, target = images, F.one_hot(labels, network.classes).to(images.dtype)
    if several:
        given, target, labels = images[None], target[None], labels[None]
    exact = training.sharing(network, parameters, given, target).detach().as_sent()
    if not norm(exact) > 0:  # of a saturated network: the message is zero, and all that is left is to guess
        guess = float((prior.mean - images).square().mean())
        return _told(pixels, 0.0, math.inf, 0, math.nan, guess, prior.variance)
    sent = defence(exact, [stream])
    seen = Observation(network, parameters, sent, training.sharing, training.images)
    starts = []
    if not several and training.sharing == FedSGD():
        whole = with_bias(seen, labels) if defence == NoOutputBias() else seen
        starts.append(invert(whole, BiasMin()).images)
    attack = MostLikely(defence, steps=30, starts=2 if pixels < FEW_PIXELS else 1)
    likely = probable = math.nan
    if pixels <= MOST_PIXELS:
        found, _ = attack.find(seen, labels, starts)
        likely = float((found - given).square().mean())
    if pixels <= MOST_PIXELS and not likely < PLAIN_ENOUGH:
        found, _ = replace(attack, prior=prior).find(seen, labels, [prior.mean.expand(given.shape), found])
        probable = float((found - given).square().mean())
    bound, directions = math.nan, -1
    if pixels <= MOST_PIXELS:
        bound, directions = _bound(
            training, defence, seen, given, target, labels, exact_norm=float(norm(exact))
        )
    return _told(
        pixels,
        _relative(sent.tensors(), exact.tensors()),
        bound,
        directions,
        likely,
        probable,
        prior.variance,
    )


def _told(
    pixels: int,
    relative_error: float,
    bound: float,
    directions: int,
    likely: float,
    probable: float,
    variance: float,
) -> dict[str, Any]:
    return dict(locals())


def _relative(sent: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    away = sum(float((ours - theirs).square().sum()) for ours, theirs in zip(sent, exact, strict=True))
    return math.sqrt(away / sum(float(one.square().sum()) for one in exact))


def _bound(
    training: Training,
    defence: Defence,
    seen: Observation,
    images: Tensor,
    target: Tensor,
    labels: Tensor,
    *,
    exact_norm: float,
) -> tuple[float, int]:
    """The least MSE of an unbiased estimate, and how many directions are known."""
    network, parameters = seen.network, seen.parameters
    entries = sum(math.prod(shape) for shape in network.parameter_shapes)
    level: float | None = None
    match defence:
        case Noise(size):
            level = size
        case LaplaceNoise(size):  # its Fisher information is twice that of normal noise of its variance
            level = size / math.sqrt(2)
        case ClippedNoise(clip, multiplier):
            level = multiplier * clip * math.sqrt(entries) / min(clip, exact_norm)
    if level is not None:
        try:
            one = limits(network, parameters, images[0], int(labels[0]))
        except InputError:  # nothing of the image is in its gradient
            return math.inf, 0
        return one.bound(level), one.directions(level)
    at, along = derivatives(
        training.sharing,
        network,
        Parameters(tuple(tensor.double() for tensor in parameters.tensors)),
        images.double(),
        target.double(),
    )
    held = [torch.ones_like(tensor, dtype=torch.float64) for tensor in at.tensors()]
    if isinstance(defence, Pruning | NoOutputBias):
        held = [(tensor != 0).double() for tensor in seen.gradient.tensors()]
    values = torch.linalg.eigvalsh(inner_products(at, along, held)).clamp_min(0).sqrt()
    return math.nan, int((values > RANK_TOLERANCE * values[-1]).sum())
