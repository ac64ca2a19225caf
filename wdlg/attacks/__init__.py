"""The attacks: what the attacker sees, label rules, the engine, and what comes out."""

from wdlg.attacks.base import Attack, Observation, Observer, Reconstruction, Start, Status
from wdlg.attacks.optimised import DLG, IDLG, LM, METHODS, WDLG, Optimised, with_settings
from wdlg.attacks.run import attack, attack_module, reconstruct, reconstruct_each

__all__ = [
    "DLG",
    "IDLG",
    "LM",
    "METHODS",
    "WDLG",
    "Attack",
    "Observation",
    "Observer",
    "Optimised",
    "Reconstruction",
    "Start",
    "Status",
    "attack",
    "attack_module",
    "reconstruct",
    "reconstruct_each",
    "with_settings",
]
