"""The cells of a study: what is computed and stored on its own, where, and all that decides its records.

A cell is one point of a part's grid: an attack, or the label rules, on one data set with one kind of network.
Its settings are part of what is stored (:mod:`wdlg.study.store`), so that no record is taken for another's.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from wdlg.attacks.base import DIVERGENCE
from wdlg.attacks.labels import ANALYTIC, RULES
from wdlg.attacks.optimised import Optimised
from wdlg.attacks.priors import PRIORS, PROJECTIONS
from wdlg.evaluation import EXPLOSION, SUCCESS_THRESHOLDS
from wdlg.losses import LOSSES
from wdlg.networks.initial import BOUND
from wdlg.networks.registry import Architecture
from wdlg.optimizers import OPTIMIZERS
from wdlg.sharing.defences import DEFENCES, Defence
from wdlg.study import schema
from wdlg.study.cases import DEVELOPMENT_EVERY, STREAMS, Design
from wdlg.study.labels import PRECISIONS, compare_rules
from wdlg.study.records import PICTURE_ITERATIONS, PICTURE_NETWORKS, TRACE_POINTS

KNOWN = {"loss": LOSSES, "optimizer": OPTIMIZERS, "projection": PROJECTIONS}
"""The fields of an attack that a study file gives by name and settings; priors are a list of such."""


@dataclass(frozen=True)
class AttackCell:
    """One attack on the images of one network, or of a few that are computed together.

    Attributes:
        part: of the study.
        dataset: name in the catalogue.
        attack: what is run.
        design: the networks and their images.
        rate: learning rate where the part has several, else None.
        trace_points: of the traces that are kept; None for ``TRACE_POINTS``.
        pictures: whether pictures are kept. Both are most of a file.
    """

    kind: ClassVar[str] = "attack"
    part: str
    dataset: str
    attack: Optimised
    design: Design
    rate: float | None = None
    trace_points: int | None = None
    pictures: bool = True

    @property
    def path(self) -> Path:
        """Where the store keeps the records, relative to its folder."""
        rates = () if self.rate is None else (f"rate-{_number(self.rate)}",)
        return Path(
            self.part,
            self.dataset,
            file_name(self.attack.name),
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
        return self.design.networks * self.design.images * self.design.starts

    def columns(self) -> dict[str, Any]:
        """What the records of this cell have in common."""
        return {
            "part": self.part,
            "dataset": self.dataset,
            "method": self.attack.name,
            "optimizer": type(self.attack.optimizer).__name__,
            "learning_rate": getattr(self.attack.optimizer, "learning_rate", math.nan),
            **_defence_columns(self.design.defence),
            # The records of several networks name the network of each row.
            **({"network": self.design.first_network} if self.design.networks == 1 else {}),
        }

    def settings(self) -> dict[str, Any]:
        """All that decides the records, for JSON; see :func:`_constants` for what no study file chooses."""
        form = self.design.architecture
        design = _fields(self.design)
        del design["network"]  # which stands beside the design
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "attack": describe_attack(self.attack),
            "design": {
                **design,
                "activation": form.activation(self.design.activation),
                "initial": form.initial(self.design.initial),
                "defence": _described(self.design.defence),
            },
            **_constants(form, bound=BOUND),
            "recorded": {
                "divergence": DIVERGENCE,
                "explosion": EXPLOSION,
                "success_thresholds": SUCCESS_THRESHOLDS,
                "trace_points": TRACE_POINTS if self.trace_points is None else self.trace_points,
                "picture_iterations": PICTURE_ITERATIONS,
                "picture_networks": PICTURE_NETWORKS if self.pictures else 0,
                "development_every": DEVELOPMENT_EVERY,
            },
        }


@dataclass(frozen=True)
class LabelCell:
    """The analytic label rules on the gradients of one data set, each of a new network.

    Attributes:
        part: of the study.
        dataset: name in the catalogue.
        activation: of the networks.
        gradients: how many.
        seed: decides images and networks.
        defence: what is done to each gradient before it is sent; None for nothing.
        network: the architecture.
        initial: the distribution of the networks' weights; None for the architecture's own.
        dtype: precision of networks and gradients, "float32" or "float64".
    """

    kind: ClassVar[str] = "labels"
    part: str
    dataset: str
    activation: str
    gradients: int
    seed: int
    defence: Defence | None = None
    network: Architecture = Architecture("lenet")  # noqa: RUF009  # frozen
    initial: str | None = None
    dtype: str = PRECISIONS[0]

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

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules: without a defence the two of WDLG and iDLG, with one all."""
        return ("bias_sign", "row_sum") if self.defence is None else ANALYTIC

    def columns(self) -> dict[str, Any]:
        """What the records of this cell have in common."""
        return {
            "part": self.part,
            "dataset": self.dataset,
            "activation": self.activation,
            "architecture": self.network.text(),
            "initial": self.network.initial(self.initial),
            "dtype": self.dtype,
            **_defence_columns(self.defence),
        }

    def settings(self) -> dict[str, Any]:
        """All that decides the records, for JSON; see :func:`_constants` for what no study file chooses."""
        settings = _fields(self)
        del settings["part"]
        return {
            "kind": self.kind,
            **settings,
            "initial": self.network.initial(self.initial),
            "defence": _described(self.defence),
            "rules": self.rules,
            **_constants(self.network, bound=_default(compare_rules, "bound")),
        }


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


def describe_attack(attack: Optimised) -> dict[str, Any]:
    """An attack as its description in a study file, without its name and with every setting."""
    described = _fields(attack)
    del described["name"]
    rule = RULES.describe(attack.label_rule)
    described["label_rule"] = rule if len(rule) > 1 else rule["name"]
    for field, known in KNOWN.items():
        described[field] = None if described[field] is None else known.describe(described[field])
    described["priors"] = [PRIORS.describe(prior) for prior in attack.priors]
    return described


def _described(defence: Defence | None) -> dict[str, Any] | None:
    return None if defence is None else DEFENCES.describe(defence)


def _constants(form: Architecture, *, bound: float) -> dict[str, Any]:
    """The network, and what decides the records and no study file chooses: numbers with a name in the code.

    What the code does with them is told by the revision in a record's provenance.

    Args:
        form: the architecture.
        bound: half width of the uniform initial weights.
    """
    return {"network": {**form.describe(), "bound": bound}, "streams": STREAMS}


def _default(function: Callable[..., Any], argument: str) -> Any:
    return inspect.signature(function).parameters[argument].default


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@cache
def file_name(attack: str) -> str:
    """The folder of an attack's records: its name, with what file systems may not take written as %XX.

    No two names share one, so the few names that keep an older form take it from whoever has it by itself.
    """
    older = {name: re.sub(r"[^\w.]+", "-", name).strip("-") for name in schema.NAMES}
    quoted = quote(attack, safe="")
    return older.get(attack) or (quoted.replace("-", "%2D") if quoted in older.values() else quoted)


def _number(value: float) -> str:
    """A number in a file's name: short where that is exact, so that no two share a file."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _defence_path(defence: Defence | None) -> tuple[str, ...]:
    if defence is None:
        return ()
    settings = DEFENCES.describe(defence)
    name = settings.pop("name")
    values = {key: _number(value) if isinstance(value, float) else value for key, value in settings.items()}
    return ("-".join([name, *(f"{key}-{value}" for key, value in values.items())]),)


def _defence_columns(defence: Defence | None) -> dict[str, Any]:
    """Name and settings of a defence as columns of records: defence, and one for each setting."""
    if defence is None:
        return {}
    settings = DEFENCES.describe(defence)
    return {"defence": settings.pop("name"), **settings}
