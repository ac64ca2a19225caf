"""The claims of the paper and the tests that decide them, as ``claims.yaml`` beside this file states them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

REPRODUCED = "reproduced"
CONDITION = "reproduced with a condition"
FAILED = "not reproduced"
UNTESTABLE = "cannot be tested from the paper"
UNDECIDED = "undecided"
VERDICTS = (REPRODUCED, CONDITION, FAILED, UNTESTABLE, UNDECIDED)


@cache
def rules() -> dict[str, Any]:
    """The content of ``claims.yaml``: level, fewest_networks, parts, claims."""
    return yaml.safe_load(files("wdlg.verdicts").joinpath("claims.yaml").read_text(encoding="utf-8"))
