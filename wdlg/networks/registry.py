"""The architectures that a study file can name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wdlg.errors import InputError, require_choice, told
from wdlg.networks.base import Network
from wdlg.networks.convnet import ConvNet
from wdlg.networks.lenet import LeNet
from wdlg.networks.resnet import ResNet
from wdlg.registry import Registry

OF_THE_CASE = ("image_shape", "classes", "activation")
"""Fields that are no settings: the data set decides the first two, and a study has the third of its own."""


class _Networks(Registry):
    """Networks by name, which have the fields of ``OF_THE_CASE``."""

    def register(self, name: str, kind: type[Any]) -> None:
        """Give a network of one's own a name, see :meth:`wdlg.registry.Registry.register`."""
        fields = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
        if fields and not set(OF_THE_CASE) <= set(fields):
            raise InputError(
                f"kind has the fields {', '.join(fields)}, but must have {', '.join(OF_THE_CASE)} among them."
            )
        super().register(name, kind)


NETWORKS = _Networks("NETWORKS", {"lenet": LeNet, "convnet": ConvNet, "resnet": ResNet})
"""By name: frozen dataclasses with the fields image_shape, classes and activation, and settings of their own.
"""


@dataclass(frozen=True)
class Architecture:
    """A network by name and settings, before images and classes are known.

    Args:
        name: in ``NETWORKS``.
        settings: (name, value) of each setting that is not to be at its default.

    Raises:
        InputError: the name or a setting is unknown, or a value out of range.

    >>> Architecture("convnet", (("width", 16),)).build((3, 32, 32), 10).parameter_shapes[0]
    (16, 3, 3, 3)
    """

    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        require_choice("network", self.name, NETWORKS)
        known = [name for name in _fields(self.name) if name not in OF_THE_CASE]
        for name, _ in self.settings:
            if name not in known:
                allowed = ", ".join(known) or "none"
                raise InputError(f"network has the setting {told(name)}, but allowed are {allowed}.")
        # One that is at its default is another way to say the same, and must not make another study.
        kept = {name: value for name, value in self.settings if value != _fields(self.name)[name]}
        object.__setattr__(self, "settings", tuple(sorted(kept.items())))
        try:
            self.build((1, 32, 32), 2)
        except InputError as error:
            raise InputError(f"network {self.name}: {error}") from None

    def build(
        self, image_shape: tuple[int, int, int], classes: int, activation: str | None = None
    ) -> Network:
        """The network for images of a shape.

        Args:
            image_shape: (channels, height, width).
            classes: number of classes K.
            activation: None for the architecture's own.
        """
        chosen = {} if activation is None else {"activation": activation}
        network: Network = NETWORKS[self.name](image_shape, classes, **chosen, **dict(self.settings))
        return network

    def activation(self, chosen: str | None) -> str:
        """The activation, or the architecture's own if none is chosen."""
        return str(_fields(self.name)["activation"]) if chosen is None else chosen

    def initial(self, chosen: str | None) -> str:
        """The distribution of initial weights, or the architecture's own if none is chosen."""
        return str(NETWORKS[self.name].initial) if chosen is None else chosen

    def text(self) -> str:
        """In words: the name, and each setting that is not at its default.

        >>> Architecture("resnet", (("width", 8),)).text()
        'resnet, width 8'
        """
        return ", ".join([self.name, *(f"{name} {value}" for name, value in self.settings)])

    def describe(self) -> dict[str, Any]:
        """Name, every setting, and what decides the form and is no setting."""
        fields = {name: value for name, value in _fields(self.name).items() if name not in OF_THE_CASE}
        return {"name": self.name, **fields, **dict(self.settings), **NETWORKS[self.name].constants}


def architecture(value: str | Mapping[str, Any] | Architecture) -> Architecture:
    """An architecture from its name, or from a table of its name and settings as in a study file.

    Raises:
        InputError: it is none of these, or something in it is unknown or out of range.

    >>> architecture({"name": "resnet", "width": 8})
    Architecture(name='resnet', settings=(('width', 8),))
    """
    if isinstance(value, Architecture):
        return value
    if isinstance(value, str):
        return Architecture(value)
    if not isinstance(value, Mapping) or "name" not in value:
        raise InputError(
            f"network is {told(value)}, but must be one of {', '.join(NETWORKS)}, or a table of a name and "
            "settings."
        )
    settings = {name: one for name, one in value.items() if name != "name"}
    return Architecture(value["name"], tuple(settings.items()))


def _fields(name: str) -> dict[str, Any]:
    """The fields of a registered network and their defaults."""
    return {field.name: field.default for field in dataclasses.fields(NETWORKS[name])}
