"""A study as a declarative file: which attacks, on which data sets, with how many networks and images.

A study file is YAML: a name, a seed, attacks by name, and parts. A part of attacks is a grid of data sets x
attacks x learning rates x defences x networks; a part of labels is a grid of data sets x activations x
defences. Either has one architecture, a LeNet unless the part names another ``network``. Each point of a grid
is a cell (:mod:`wdlg.study.cells`).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wdlg import data
from wdlg.attacks.labels import RULES
from wdlg.attacks.optimised import Optimised, with_settings
from wdlg.attacks.priors import PRIORS
from wdlg.errors import (
    InputError,
    require_choice,
    require_count,
    require_flag,
    require_positive,
    require_table,
)
from wdlg.networks.activations import ACTIVATIONS
from wdlg.networks.initial import DISTRIBUTIONS
from wdlg.networks.registry import Architecture, architecture
from wdlg.optimizers import OPTIMIZERS
from wdlg.registry import single
from wdlg.sharing.defences import DEFENCES, Defence
from wdlg.study import schema, study_file
from wdlg.study.cases import POOLS, Design
from wdlg.study.cells import KNOWN, AttackCell, Cell, LabelCell, Study, file_name
from wdlg.study.labels import PRECISIONS

MOST_CELLS = 1_000_000
"""In a study; more are a slip of the keyboard, and would fill the memory before the first is computed."""

LONGEST_FILE_NAME = 200
"""Characters; file systems allow 255, and the store adds to a name while a file is being written."""


def load(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        InputError: the file cannot be read, or something in it is unknown, missing or out of range.
    """
    content = study_file.read(Path(path))
    try:
        return from_mapping(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_mapping(content: Any) -> Study:
    """A study from the content of its file.

    Raises:
        InputError: something is unknown, missing or out of range.
    """
    top = require_table(
        "the study", content, required=("name", "seed", "attacks", "parts"), optional=("pool",)
    )
    study = _folder_name("name", top["name"])
    seed = require_count("seed", top["seed"], at_least=0)
    pool = require_choice("pool", single("pool", top.get("pool", "all")), POOLS)
    attacks = {
        name: build_attack(_attack_name(name), settings)
        for name, settings in require_table("attacks", top["attacks"]).items()
    }
    _require_distinct_files("attacks", {name: file_name(name) for name in attacks})
    parts = require_table("parts", top["parts"])
    _require_distinct_files("parts", {name: _folder_name("a name in parts", name) for name in parts})
    cells: list[Cell] = []
    for name, part in parts.items():
        if "gradients" in require_table(f"parts.{name}", part):
            cells += _label_cells(name, part, seed)
        else:
            cells += _attack_cells(name, part, attacks, seed, pool)
    # A stable sort: within one network the order of the file.
    cells.sort(key=lambda cell: cell.design.first_network if isinstance(cell, AttackCell) else 0)
    return Study(study, tuple(cells))


def build_attack(name: str, settings: Any) -> Optimised:
    """An attack from its description in a study file; ``describe_attack`` is the inverse.

    >>> build_attack("x", {"label_rule": "row_sum", "loss": {"name": "wasserstein", "eps": 1.0}}).loss.eps
    1.0
    """
    where = f"attacks.{name}"
    fields = [field.name for field in dataclasses.fields(Optimised)]
    given = dict(require_table(where, settings, required=("label_rule",), optional=fields[2:]))
    for field, value in given.items():
        at = f"{where}.{field}"
        if field == "priors" and isinstance(value, list):
            given[field] = tuple(PRIORS.build(at, one) for one in value)
        elif field == "label_rule" and isinstance(value, Mapping):
            given[field] = RULES.build(at, value)
        elif field in KNOWN and value is not None:
            given[field] = KNOWN[field].build(at, value)
        else:
            given[field] = single(at, value)
    return Optimised(name, **given)


def _attack_cells(name: str, part: Any, attacks: Mapping[str, Optimised], seed: int, pool: str) -> list[Cell]:
    where = f"parts.{name}"
    given = require_table(
        where,
        part,
        required=("datasets", "attacks", "networks", "images", "evaluations"),
        optional=(
            *("learning_rates", "optimizer", "optimizers", "network", "activation", "initial", "classes"),
            *("networks_a_cell", "defences", "starts", "start_distance", "trace_points", "pictures"),
        ),
    )
    defences = _defences(where, given)
    datasets = _choices(f"{where}.datasets", given["datasets"], data.CATALOGUE)
    chosen = _choices(f"{where}.attacks", given["attacks"], attacks)
    optimizers = _optimizers(where, given, chosen)
    rates = _learning_rates(f"{where}.learning_rates", given.get("learning_rates"), chosen)
    networks = require_count(f"{where}.networks", given["networks"])
    together = require_count(f"{where}.networks_a_cell", given.get("networks_a_cell", 1))
    firsts = range(0, networks, together)
    count = len(firsts) * len(datasets) * sum(map(len, rates.values())) * len(defences)
    if count > MOST_CELLS:
        raise InputError(f"{where} has {count:,} cells, but must have at most {MOST_CELLS:,}.")
    choices = {
        key: single(f"{where}.{key}", given[key])
        for key in ("activation", "initial", "classes", "starts", "start_distance")
        if key in given
    }
    form = _network(where, given, datasets)
    kept = (
        require_count(f"{where}.trace_points", given["trace_points"], at_least=2)
        if "trace_points" in given
        else None,
        require_flag(f"{where}.pictures", single(f"{where}.pictures", given.get("pictures", True))),
    )
    cells: list[Cell] = []
    for network, dataset in itertools.product(firsts, datasets):
        design = Design(
            networks=min(together, networks - network),
            images=given["images"],
            seed=seed,
            first_network=network,
            pool=pool,
            network=form,
            **choices,
        )
        tried = [(name, rate) for name in chosen for rate in rates[name]]
        for (attack_name, rate), defence in itertools.product(tried, defences):
            attack = attacks[attack_name]
            if attack_name in optimizers:
                attack = replace(attack, optimizer=optimizers[attack_name])
            set_up = with_settings(attack, evaluations=given["evaluations"], learning_rate=rate)
            cells.append(AttackCell(name, dataset, set_up, replace(design, defence=defence), rate, *kept))
    return cells


def _optimizers(where: str, given: Mapping[str, Any], attacks: Sequence[str]) -> dict[str, Any]:
    """By attack the optimiser that takes the place of its own: one for all, or a table for some of them."""
    if "optimizer" in given:
        if "optimizers" in given:
            raise InputError(f"{where}.optimizers is given, but must be left out where optimizer is.")
        one = OPTIMIZERS.build(f"{where}.optimizer", given["optimizer"])
        return dict.fromkeys(attacks, one)
    at = f"{where}.optimizers"
    table = require_table(at, given.get("optimizers", {}), required=(), optional=attacks)
    return {name: OPTIMIZERS.build(f"{at}.{name}", described) for name, described in table.items()}


def _learning_rates(where: str, given: Any, attacks: Sequence[str]) -> dict[str, list[float | None]]:
    """By attack its learning rates: those of a list, or its own of a table; None for what the attack has."""
    if given is None:
        return {name: [None] for name in attacks}
    if not isinstance(given, Mapping):
        rates = [require_positive(where, rate) for rate in _list(where, given)]
        return {name: list(rates) for name in attacks}
    table = require_table(where, given, required=attacks, optional=())
    return {name: [require_positive(f"{where}.{name}", single(where, table[name]))] for name in attacks}


def _label_cells(name: str, part: Any, seed: int) -> list[Cell]:
    where = f"parts.{name}"
    given = require_table(
        where,
        part,
        required=("datasets", "activations", "gradients"),
        optional=("network", "initial", "dtype", "defences"),
    )
    gradients = require_count(f"{where}.gradients", given["gradients"])
    datasets = _choices(f"{where}.datasets", given["datasets"], data.CATALOGUE)
    form, initial = _network(where, given, datasets), given.get("initial")
    if initial is not None:
        require_choice(f"{where}.initial", single(f"{where}.initial", initial), DISTRIBUTIONS)
    at = f"{where}.dtype"
    dtype = require_choice(at, single(at, given.get("dtype", PRECISIONS[0])), PRECISIONS)
    return [
        LabelCell(name, dataset, activation, gradients, seed, defence, form, initial, dtype)
        for dataset, activation, defence in itertools.product(
            datasets,
            _choices(f"{where}.activations", given["activations"], ACTIVATIONS),
            _defences(where, given),
        )
    ]


def _network(where: str, given: Mapping[str, Any], datasets: Sequence[str]) -> Architecture:
    """The architecture of a part, by its name or with settings, if it takes the images of the data sets."""
    described = given.get("network", "lenet")
    at = f"{where}.network"
    if isinstance(described, Mapping):
        described = require_table(at, described, required=("name",))
        described = {key: single(f"{at}.{key}", value) for key, value in described.items()}
    try:
        form = architecture(described)
        for name in datasets:
            entry = data.CATALOGUE[name]
            height, width, channels = entry.shape
            form.build((channels, height, width), entry.num_classes)
        return form
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _defences(where: str, given: Mapping[str, Any]) -> list[Defence | None]:
    """The defences of a part, by name and settings; none at all where it does not speak of them."""
    if "defences" not in given:
        return [None]
    where = f"{where}.defences"
    built = [DEFENCES.build(where, settings) for settings in _list(where, given["defences"])]
    _require_distinct(where, built)
    return built


def _attack_name(name: str) -> str:
    if not name.isprintable() or name != name.strip() or name.startswith(".") or not name:
        raise InputError(
            f"attacks has the name {name!r}, but a name must be printable text that starts with no dot and "
            "has no space at its ends."
        )
    if len(file_name(name)) > LONGEST_FILE_NAME:
        raise InputError(f"attacks has the name {reprlib.repr(name)}, but it must be shorter.")
    return name


def _folder_name(where: str, name: Any) -> str:
    """A name that is a folder's as well."""
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[^\W_]([\w.+ -]*[\w+-])?", name)
        or len(name) > LONGEST_FILE_NAME
        or name.casefold() in schema.RESERVED
    ):
        raise InputError(
            f"{where} is {reprlib.repr(name)}, but must be text of letters, digits, spaces and . + - _ that "
            f"begins with a letter or digit, does not end in a dot or space, and is not "
            f"{' or '.join(schema.RESERVED)}."
        )
    return name


def _require_distinct_files(where: str, files: Mapping[str, str]) -> None:
    """No two names whose files differ in capitals only: many file systems do not tell these apart."""
    taken: dict[str, str] = {}
    for name, file in files.items():
        other = taken.setdefault(file.casefold(), name)
        if other != name:
            raise InputError(
                f"{where} has {other!r} and {name!r}, but names must differ in more than capitals."
            )


def _require_distinct(where: str, values: Sequence[Any]) -> None:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise InputError(f"{where} has {reprlib.repr(value)} twice, but each entry must be there once.")


def _list(where: str, given: Any) -> list[Any]:
    """A list of at least one entry, none of them twice."""
    if not isinstance(given, list) or not given:
        raise InputError(f"{where} is {reprlib.repr(given)}, but must be a list of at least one entry.")
    _require_distinct(where, given)
    return given


def _choices(where: str, given: Any, allowed: Collection[str]) -> list[str]:
    return [require_choice(where, single(where, value), allowed) for value in _list(where, given)]
