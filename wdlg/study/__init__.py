"""Studies: many attacks on the same private images, networks and dummies, and what they add up to."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wdlg.study.cases import Cases, Design, draw
    from wdlg.study.labels import compare_rules
    from wdlg.study.paired import Outcome, run_paired

HOMES = {
    **dict.fromkeys(("Cases", "Design", "draw"), "cases"),
    "compare_rules": "labels",
    **dict.fromkeys(("Outcome", "run_paired"), "paired"),
}
"""The module of each name. It is loaded when the name is first used: one attack needs no tables."""

__all__ = ["Cases", "Design", "Outcome", "compare_rules", "draw", "run_paired"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
