"""Deep leakage from gradients, measured: the attacks DLG, iDLG and WDLG, and the study of them.

The flow goes one way: images -> network -> gradient -> sharing -> label rule, loss and optimiser (attack)
-> reconstruction -> evaluation -> study -> verdicts -> figures -> book. Each room knows only those before it.

The names below are what most programs need; each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wdlg import data
    from wdlg.attacks import DLG, IDLG, WDLG, Observation, attack, attack_module
    from wdlg.errors import InputError
    from wdlg.evaluation import evaluate
    from wdlg.networks import LeNet, ModuleNetwork
    from wdlg.study import Design, draw, run_paired
    from wdlg.updates import from_tensors

    __version__: str

_HOMES = {
    "data": None,
    "DLG": "wdlg.attacks",
    "IDLG": "wdlg.attacks",
    "WDLG": "wdlg.attacks",
    "Observation": "wdlg.attacks",
    "attack": "wdlg.attacks",
    "attack_module": "wdlg.attacks",
    "InputError": "wdlg.errors",
    "evaluate": "wdlg.evaluation",
    "LeNet": "wdlg.networks",
    "ModuleNetwork": "wdlg.networks",
    "Design": "wdlg.study",
    "draw": "wdlg.study",
    "run_paired": "wdlg.study",
    "from_tensors": "wdlg.updates",
}

__all__ = [
    "DLG",
    "IDLG",
    "WDLG",
    "Design",
    "InputError",
    "LeNet",
    "ModuleNetwork",
    "Observation",
    "attack",
    "attack_module",
    "data",
    "draw",
    "evaluate",
    "from_tensors",
    "run_paired",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("wdlg")
    if name not in _HOMES:
        raise AttributeError(f"module 'wdlg' has no attribute {name!r}")
    home = _HOMES[name]
    found = (
        importlib.import_module(f"wdlg.{name}")
        if home is None
        else getattr(importlib.import_module(home), name)
    )
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
