"""A study as a declarative file: which attacks, on which data sets, with how many networks and images.

A study file is YAML: a name, a seed, attacks by name, and parts. A part of attacks is a grid of data sets x
attacks x learning rates x defences x networks; a part of labels is a grid of data sets x activations x
defences. Each point of a grid is a :class:`Cell`, computed and stored on its own (:mod:`wdlg.study.store`).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from wdlg import data, losses, optimizers
from wdlg.attack import Attack, with_settings
from wdlg.defences import DEFENCES, Defence, describe, title
from wdlg.errors import InputError, require_choice, require_count
from wdlg.networks import ACTIVATIONS
from wdlg.study.cases import POOLS, Design

LOSSES = {
    "squared_euclidean": losses.SquaredEuclidean,
    "euclidean": losses.Euclidean,
    "sent_entries": losses.SentEntries,
    "pseudo_huber": losses.PseudoHuber,
    "cosine": losses.Cosine,
    "wasserstein": losses.Wasserstein,
    "sliced_wasserstein": losses.SlicedWasserstein,
}
OPTIMIZERS = {
    "lbfgs": optimizers.LBFGS,
    "gradient_descent": optimizers.GradientDescent,
    "adam": optimizers.Adam,
}
"""Names of matching losses and optimisers in a study file; the keys beside a name are its settings."""


@dataclass(frozen=True)
class AttackCell:
    """One attack on the images of one network, or of a few that are computed together.

    Attributes:
        part: of the study.
        dataset: name in the catalogue.
        attack: what is run.
        design: the networks and their images.
        rate: learning rate where the part has several, else None.
    """

    kind: ClassVar[str] = "attack"
    part: str
    dataset: str
    attack: Attack
    design: Design
    rate: float | None = None

    @property
    def path(self) -> Path:
        """Where the store keeps the records, relative to its folder."""
        name = re.sub(r"[^\w.]+", "-", self.attack.name).strip("-")
        rates = () if self.rate is None else (f"rate-{self.rate:g}",)
        return Path(
            self.part,
            self.dataset,
            name,
            *rates,
            *_defence_path(self.design.defence),
            f"network-{self.design.first_network:03}.parquet",
        )

    @property
    def group(self) -> tuple[str, ...]:
        """Cells of one group take about the same time."""
        return self.part, self.dataset, self.attack.name

    @property
    def attacks(self) -> int:
        """Attacks in the cell."""
        return self.design.networks * self.design.images

    def columns(self) -> dict[str, Any]:
        """What the records of this cell have in common."""
        return {
            "part": self.part,
            "dataset": self.dataset,
            "method": self.attack.name,
            "optimizer": type(self.attack.optimizer).__name__,
            "learning_rate": self.attack.optimizer.learning_rate,  # type: ignore[attr-defined]
            **_defence_columns(self.design.defence),
            # The records of several networks name the network of each row.
            **({"network": self.design.first_network} if self.design.networks == 1 else {}),
        }

    def settings(self) -> dict[str, Any]:
        """All that decides the records, for JSON. Settings at their default are left out."""
        design = _changed(self.design)
        if self.design.defence is not None:
            design["defence"] = describe(self.design.defence)
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "attack": describe_attack(self.attack),
            "design": design,
        }


@dataclass(frozen=True)
class LabelCell:
    """The analytic label rules on the gradients of one data set, each of a new network.

    Without a defence these are the two of WDLG and iDLG, with one all of ``labels.ANALYTIC``.
    """

    kind: ClassVar[str] = "labels"
    part: str
    dataset: str
    activation: str
    gradients: int
    seed: int
    defence: Defence | None = None

    @property
    def path(self) -> Path:
        """Where the store keeps the records, relative to its folder."""
        return Path(self.part, self.dataset, *_defence_path(self.defence), f"{self.activation}.parquet")

    @property
    def group(self) -> tuple[str, ...]:
        """Cells of one group take about the same time."""
        return self.part, self.dataset

    @property
    def attacks(self) -> int:
        """Gradients in the cell."""
        return self.gradients

    def columns(self) -> dict[str, Any]:
        """What the records of this cell have in common."""
        return {
            "part": self.part,
            "dataset": self.dataset,
            "activation": self.activation,
            **_defence_columns(self.defence),
        }

    def settings(self) -> dict[str, Any]:
        """All that decides the records, for JSON."""
        settings = dataclasses.asdict(self)
        del settings["part"], settings["defence"]
        if self.defence is not None:
            settings["defence"] = describe(self.defence)
        return {"kind": self.kind, **settings}


Cell = AttackCell | LabelCell


@dataclass(frozen=True)
class Study:
    """A study file, read and checked.

    Attributes:
        name: of the study.
        cells: in the order in which they are computed: the first network of everything comes first, so that a
            study that is not complete is a smaller study.
    """

    name: str
    cells: tuple[Cell, ...]

    def part(self, name: str) -> list[Cell]:
        """The cells of one part."""
        return [cell for cell in self.cells if cell.part == name]


def load(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        InputError: the file cannot be read, or something in it is unknown, missing or out of range.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"STUDY is {str(path)!r}, but must be a readable YAML file ({reason}).") from None
    try:
        return from_mapping(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_mapping(content: Any) -> Study:
    """A study from the content of its file.

    Raises:
        InputError: something is unknown, missing or out of range.
    """
    top = _table("the study", content, required=("name", "seed", "attacks", "parts"), optional=("pool",))
    seed = require_count("seed", top["seed"], at_least=0)
    pool = require_choice("pool", top.get("pool", "all"), POOLS)
    attacks = {
        str(name): build_attack(str(name), settings)
        for name, settings in _table("attacks", top["attacks"]).items()
    }
    cells: list[Cell] = []
    for name, part in _table("parts", top["parts"]).items():
        if "gradients" in _table(f"parts.{name}", part):
            cells += _label_cells(str(name), part, seed)
        else:
            cells += _attack_cells(str(name), part, attacks, seed, pool)
    # A stable sort: within one network the order of the file.
    cells.sort(key=lambda cell: cell.design.first_network if isinstance(cell, AttackCell) else 0)
    return Study(str(top["name"]), tuple(cells))


def build_attack(name: str, settings: Any) -> Attack:
    """An attack from its description in a study file; the inverse of :func:`describe_attack`.

    >>> build_attack("x", {"label_rule": "row_sum", "loss": {"name": "wasserstein", "eps": 1.0}}).loss.eps
    1.0
    """
    where = f"attacks.{name}"
    fields = ("loss", "optimizer", "evaluations", "stop_loss")
    given = dict(_table(where, settings, required=("label_rule",), optional=fields))
    for field, known in (("loss", LOSSES), ("optimizer", OPTIMIZERS)):
        if field in given:
            given[field] = _build(f"{where}.{field}", given[field], known)
    return Attack(name, **given)


def describe_attack(attack: Attack) -> dict[str, Any]:
    """An attack as its description in a study file, without its name; defaults are left out."""
    described = _changed(attack)
    described.pop("name", None)
    for field, known in (("loss", LOSSES), ("optimizer", OPTIMIZERS)):
        if value := described.get(field):
            names = {built: name for name, built in known.items()}
            described[field] = {"name": names[type(value)], **_changed(value)}
    return described


def _attack_cells(name: str, part: Any, attacks: Mapping[str, Attack], seed: int, pool: str) -> list[Cell]:
    where = f"parts.{name}"
    given = _table(
        where,
        part,
        required=("datasets", "attacks", "networks", "images", "evaluations"),
        optional=("learning_rates", "optimizer", "activation", "classes", "networks_a_cell", "defences"),
    )
    rates: Sequence[float | None] = _list(f"{where}.learning_rates", given.get("learning_rates", [None]))
    optimizer = _build(f"{where}.optimizer", given["optimizer"], OPTIMIZERS) if "optimizer" in given else None
    defences = _defences(where, given)
    cells: list[Cell] = []
    networks = require_count(f"{where}.networks", given["networks"])
    together = require_count(f"{where}.networks_a_cell", given.get("networks_a_cell", 1))
    for network in range(0, networks, together):
        for dataset in _list(f"{where}.datasets", given["datasets"]):
            require_choice(f"{where}.datasets", dataset, data.CATALOGUE)
            design = Design(
                networks=min(together, networks - network),
                images=given["images"],
                seed=seed,
                first_network=network,
                pool=pool,
                **{key: given[key] for key in ("activation", "classes") if key in given},
            )
            for attack_name in _list(f"{where}.attacks", given["attacks"]):
                attack = attacks[require_choice(f"{where}.attacks", attack_name, attacks)]
                if optimizer is not None:
                    attack = replace(attack, optimizer=optimizer)
                for rate, defence in itertools.product(rates, defences):
                    set_up = with_settings(attack, evaluations=given["evaluations"], learning_rate=rate)
                    against = replace(design, defence=defence)
                    cells.append(AttackCell(name, dataset, set_up, against, rate))
    return cells


def _label_cells(name: str, part: Any, seed: int) -> list[Cell]:
    where = f"parts.{name}"
    given = _table(where, part, required=("datasets", "activations", "gradients"), optional=("defences",))
    defences = _defences(where, given)
    return [
        LabelCell(
            name,
            require_choice(f"{where}.datasets", dataset, data.CATALOGUE),
            require_choice(f"{where}.activations", activation, ACTIVATIONS),
            require_count(f"{where}.gradients", given["gradients"]),
            seed,
            defence,
        )
        for dataset in _list(f"{where}.datasets", given["datasets"])
        for activation in _list(f"{where}.activations", given["activations"])
        for defence in defences
    ]


def _defences(where: str, given: Mapping[str, Any]) -> list[Defence | None]:
    """The defences of a part, by name and settings; none at all where it does not speak of them."""
    if "defences" not in given:
        return [None]
    return [
        _build(f"{where}.defences", settings, DEFENCES)
        for settings in _list(f"{where}.defences", given["defences"])
    ]


def _defence_path(defence: Defence | None) -> tuple[str, ...]:
    return () if defence is None else (re.sub(r"[^\w.]+", "-", title(defence)),)


def _defence_columns(defence: Defence | None) -> dict[str, Any]:
    """Name and settings of a defence as columns of records: defence, and one for each setting."""
    if defence is None:
        return {}
    settings = describe(defence)
    return {"defence": settings.pop("name"), **settings}


def _build(where: str, settings: Any, known: Mapping[str, Any]) -> Any:
    """An object by its name in ``known`` and its settings."""
    given = dict(_table(where, settings, required=("name",), optional=None))
    built = known[require_choice(f"{where}.name", given.pop("name"), known)]
    fields = dataclasses.fields(built)
    required = [field.name for field in fields if field.default is field.default_factory]  # both are missing
    _require_keys(where, given, required, tuple(field.name for field in fields))
    return built(**given)


def _changed(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default."""
    changed = {}
    for field in dataclasses.fields(value):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if (now := getattr(value, field.name)) != default:
            changed[field.name] = now
    return changed


def _table(
    where: str, given: Any, *, required: Collection[str] = (), optional: Collection[str] | None = None
) -> Mapping[str, Any]:
    """A mapping with the required keys; others must be among ``optional`` unless that is None."""
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {given!r}, but must be a table of keys and values.")
    if required or optional is not None:
        _require_keys(where, given, required, optional)
    return given


def _require_keys(
    where: str, given: Mapping[str, Any], required: Collection[str], optional: Collection[str] | None
) -> None:
    for key in required:
        if key not in given:
            raise InputError(f"{where} has no {key!r}, but must have one.")
    if optional is not None:
        for key in given:
            if key not in (*required, *optional):
                allowed = ", ".join((*required, *optional))
                raise InputError(f"{where} has the key {key!r}, but allowed are {allowed}.")


def _list(where: str, given: Any) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise InputError(f"{where} is {given!r}, but must be a list of at least one entry.")
    return given
