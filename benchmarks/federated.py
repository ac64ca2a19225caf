"""``python -m benchmarks.federated``: a federated round by Flower, and what its server can see.

Flower's own server asks real clients to train, in this process: no sockets, no Ray. Each client is a plain
PyTorch program with one digit. The server keeps what each sends, and then attacks it. The results are written
to ``benchmarks/federated.json``, which the chapter on a federated round reads, since Flower cannot be
installed beside the book; ``make federated`` makes an environment for it and runs this with ``--check``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import click
import flwr
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from flwr.client import Client, NumPyClient
from flwr.common import (
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    ReconnectIns,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import Server, SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg as Strategy
from torch import Tensor

from wdlg import data
from wdlg.attacks.base import Observation
from wdlg.attacks.exact import invert
from wdlg.attacks.labels import BiasMin
from wdlg.attacks.most_likely import MostLikely
from wdlg.attacks.most_probable import NormalPrior
from wdlg.networks import LeNet
from wdlg.networks.base import Parameters as Weights
from wdlg.sharing.defences import ClippedNoise, Defence, Unprotected
from wdlg.sharing.federated import FedAvg, FedSGD
from wdlg.updates.gradient import Gradient, from_tensors

RESULT = Path(__file__).parent / "federated.json"

CLIENTS = 8
RATE = 0.1
STEPS = 5
DEFENCE = ClippedNoise(1.0, 0.1)
NETWORK = LeNet((1, 8, 8), 10, activation="tanh")


class Participant(NumPyClient):
    """A client that trains on its one image as any PyTorch program does.

    Args:
        image: (1, 1, 8, 8).
        label: (1,).
        steps: of gradient descent.
        defence: of the change of its weights, before it is sent; in units of one step's gradient.
        seed: of the defence.
    """

    def __init__(self, image: Tensor, label: Tensor, steps: int, defence: Defence, seed: int) -> None:
        self.image, self.label, self.steps = image, label, steps
        self.defence, self.seed = defence, seed

    def fit(
        self, parameters: list[np.ndarray], config: dict[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """Train from the server's weights, and send the own ones."""
        module = NETWORK.as_module(_weights(parameters))
        optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
        for _ in range(self.steps):
            optimizer.zero_grad()
            F.cross_entropy(module(self.image), self.label).backward()
            optimizer.step()
        after = [tensor.detach().numpy() for tensor in module.parameters()]
        if self.defence != Unprotected():
            stream = torch.Generator().manual_seed(self.seed)
            sent = self.defence(change(parameters, after, self.steps), [stream]).tensors()
            after = [
                (old - RATE * self.steps * one.numpy().reshape(old.shape)).astype(old.dtype)
                for old, one in zip(parameters, sent, strict=True)
            ]
        return after, 1, {}


class InProcess(ClientProxy):
    """What Flower's server takes for a client: one that is called instead of sent to.

    Args:
        cid: its name.
        client: the client.
    """

    def __init__(self, cid: str, client: Client) -> None:
        super().__init__(cid)
        self.client = client

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None) -> FitRes:
        """Its answer to a request to train."""
        return self.client.fit(ins)

    def evaluate(self, ins: EvaluateIns, timeout: float | None, group_id: int | None) -> EvaluateRes:
        """Its answer to a request to test."""
        return self.client.evaluate(ins)

    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None
    ) -> GetParametersRes:
        """Its weights."""
        return self.client.get_parameters(ins)

    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None
    ) -> GetPropertiesRes:
        """Its properties."""
        return self.client.get_properties(ins)

    def reconnect(self, ins: ReconnectIns, timeout: float | None, group_id: int | None) -> DisconnectRes:
        """It never was away."""
        return DisconnectRes(reason="")


class Curious(Strategy):
    """Federated averaging by Flower that keeps what each client sent: an honest but curious server."""

    kept: dict[str, list[np.ndarray]]

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: list[Any]
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """What Flower's own strategy makes of it."""
        if failures:
            raise RuntimeError(f"{len(failures)} clients failed: {failures[0]}")
        self.kept = {proxy.cid: parameters_to_ndarrays(result.parameters) for proxy, result in results}
        return super().aggregate_fit(server_round, results, failures)


def flower_round(
    participants: Sequence[Participant], weights: list[np.ndarray]
) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """One round of Flower's server: what each client sent, in their order, and the new weights."""
    manager = SimpleClientManager()
    for number, one in enumerate(participants):
        manager.register(InProcess(str(number), one.to_client()))
    count = len(participants)
    strategy = Curious(min_fit_clients=count, min_available_clients=count)
    server = Server(client_manager=manager, strategy=strategy)
    server.parameters = ndarrays_to_parameters(weights)
    outcome = server.fit_round(server_round=1, timeout=None)
    assert outcome is not None
    assert outcome[0] is not None
    return [strategy.kept[str(number)] for number in range(count)], parameters_to_ndarrays(outcome[0])


def change(before: Sequence[np.ndarray], after: Sequence[np.ndarray], steps: int) -> Gradient:
    """``(old - new) / (rate steps)``, the gradient for one step; what rounding leaves is no rank one."""
    tensors = [
        torch.from_numpy((old.astype(np.float64) - new) / (RATE * steps))[None]
        for old, new in zip(before, after, strict=True)
    ]
    return from_tensors([one.float() for one in tensors], rank_one=False)


def _weights(arrays: Sequence[np.ndarray]) -> Weights:
    return Weights(
        tuple(
            torch.from_numpy(np.array(one)).reshape(1, *shape)
            for one, shape in zip(arrays, NETWORK.parameter_shapes, strict=True)
        )
    )


@dataclass(frozen=True)
class Setting:
    """What the clients do, and what the server takes them to do."""

    name: str
    steps: int
    defence: Defence
    attack: str


SETTINGS = (
    Setting("one step", 1, Unprotected(), "closed form"),
    Setting("five steps, taken for one", STEPS, Unprotected(), "closed form"),
    Setting("five steps, known", STEPS, Unprotected(), "most likely"),
    Setting("one step, defended", 1, DEFENCE, "closed form"),
    Setting("one step, defence known", 1, DEFENCE, "most probable"),
)


def measure() -> dict[str, Any]:
    """All settings with the same clients, images and weights."""
    sample = data.load("digits")
    images, labels = sample.tensor()[:CLIENTS], torch.from_numpy(sample.labels[:CLIENTS])
    prior = NormalPrior.of(sample.tensor()[200:1000])
    start = NETWORK.initial_parameters(generator=torch.Generator().manual_seed(0), distribution="torch")
    shapes = [tuple(one.shape) for one in NETWORK.as_module(start).parameters()]
    weights = [one[0].numpy().reshape(shape) for one, shape in zip(start.tensors, shapes, strict=True)]
    rows = []
    for setting in SETTINGS:
        clients = [
            Participant(images[[place]], labels[[place]], setting.steps, setting.defence, place)
            for place in range(CLIENTS)
        ]
        began = time.perf_counter()
        sent, new = flower_round(clients, weights)
        seconds = time.perf_counter() - began
        mean = [np.mean(parts, axis=0) for parts in zip(*sent, strict=True)]
        averaged = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(mean, new, strict=True))
        found = [_attack(setting, weights, one, prior) for one in sent]
        errors = [float((one - image).square().mean()) for (one, _), image in zip(found, images, strict=True)]
        right = sum(int(label) == int(true) for (_, label), true in zip(found, labels, strict=True))
        rows.append(
            {
                "setting": setting.name,
                "steps": setting.steps,
                "defence": str(setting.defence),
                "attack": setting.attack,
                "mse": [float(f"{one:.3g}") for one in errors],
                "labels right": right,
                "pictures": [(255 * one.clamp(0, 1)).round().int().flatten().tolist() for one, _ in found],
                "seconds of the round": round(seconds, 3),
                "largest difference of Flower's average to the mean of what was kept": averaged,
            }
        )
    return {
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "flwr": flwr.__version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "clients": CLIENTS,
        "rate": RATE,
        "entries": sum(one.size for one in weights),
        "guess": float((prior.mean - images).square().mean()),
        "rows": rows,
    }


def _attack(
    setting: Setting, before: list[np.ndarray], after: list[np.ndarray], prior: NormalPrior
) -> tuple[Tensor, Tensor]:
    """Picture (1, 8, 8) and label from what one client sent."""
    gradient = change(before, after, setting.steps)
    label = BiasMin()(gradient)
    sharing = FedAvg(RATE, setting.steps) if setting.attack == "most likely" else FedSGD()
    seen = Observation(NETWORK, _weights(before), gradient, sharing)
    if setting.attack == "closed form":
        return invert(seen, BiasMin()).images[0].float(), label
    known = prior if setting.attack == "most probable" else None
    images, _ = MostLikely(setting.defence, known).find(seen, label)
    return images[0].float(), label


def problems(found: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """What contradicts the chapter: its facts, and the results that it reads."""
    by = {row["setting"]: row["mse"] for row in found["rows"]}
    stated = {
        "one step gives every image away": max(by["one step"]) < 1e-4,
        "who takes five steps for one sees less": np.median(by["five steps, taken for one"])
        > 100 * np.median(by["one step"]),
        "who knows of the five steps sees every image": max(by["five steps, known"]) < 1e-4,
        "the defence hides every image from the closed form": min(by["one step, defended"]) > 0.01,
        "and from who knows of it": min(by["one step, defence known"]) > 0.01,
        "Flower's average is the mean": all(
            row["largest difference of Flower's average to the mean of what was kept"] < 1e-6
            for row in found["rows"]
        ),
    }
    failed = [f"not so: {fact}" for fact, holds in stated.items() if not holds]
    for new, old in zip(found["rows"], kept["rows"], strict=True):
        for ours, theirs in zip(new["mse"], old["mse"], strict=True):
            # Exact recovery ends in rounding, which another machine does otherwise.
            if max(ours, theirs) > 1e-6 and not 0.5 < ours / theirs < 2:
                failed.append(f"{new['setting']}: an MSE of {ours}, kept is {theirs}")
    return failed


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--check", is_flag=True, help="Compare with the results that are kept, and keep those.")
def main(check: bool) -> None:
    """Run the rounds, attack them, and keep what is found in benchmarks/federated.json."""
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    found = measure()
    for row in found["rows"]:
        click.echo(
            f"{row['setting']}: MSE {np.median(row['mse']):.2g} (median), {max(row['mse']):.2g} (most)"
        )
    if not check:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    failed = problems(found, json.loads(RESULT.read_text()))
    if failed:
        raise click.ClickException("; ".join(failed))
    click.echo("As the chapter says." if check else f"Written to {RESULT.name}.")


if __name__ == "__main__":
    main()
