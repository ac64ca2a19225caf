"""Import torchvision's data sets also where its compiled part does not fit torch.

Beside a CPU build of torch, torchvision from the package index fails to import: its compiled part wants
CUDA, so the operators that it registers with torch are missing. The data sets need none of them. Where
torchvision loads as it is, this does nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_DECLARED: list[torch.library.Library] = []
"""Keeps the declarations alive: torch forgets them when the library object goes."""


def torchvision_datasets() -> ModuleType:
    """The module ``torchvision.datasets``."""
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
    return importlib.import_module("torchvision.datasets")
