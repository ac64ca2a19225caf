"""Import parts of torchvision also where its compiled part does not fit torch.

Beside a CPU build of torch, torchvision from the package index fails to import: its compiled part wants
CUDA, so the operators that it registers with torch are missing. Data sets and classifiers need none of them.
Where torchvision loads as it is, this does nothing.
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


def torchvision_module(name: str) -> ModuleType:
    """A module of torchvision, such as ``torchvision.datasets``."""
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    import torch

    for loaded in [one for one in sys.modules if one.split(".")[0] == "torchvision"]:
        del sys.modules[loaded]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
    return importlib.import_module(name)
