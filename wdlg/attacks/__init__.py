"""The attacks: what the attacker sees, label rules, the engine, and what comes out."""

from wdlg.attacks.base import (
    DLG,
    IDLG,
    METHODS,
    WDLG,
    Attack,
    Observation,
    Reconstruction,
    Status,
    with_settings,
)
from wdlg.attacks.engine import Start, reconstruct, reconstruct_each

__all__ = [
    "DLG",
    "IDLG",
    "METHODS",
    "WDLG",
    "Attack",
    "Observation",
    "Reconstruction",
    "Start",
    "Status",
    "reconstruct",
    "reconstruct_each",
    "with_settings",
]
