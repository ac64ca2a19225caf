"""Read the YAML of a study file, and refuse what YAML itself would take silently or answer at length."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from wdlg.errors import InputError

LONGEST = 200
"""Characters of a single entry: more than a name or number needs. A longer one is of another kind of file."""


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys and long texts, in which 1e-8 is a number, as in YAML 1.2."""

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if len(value) > LONGEST:
            problem = f"an entry has {len(value)} characters, and none may have more than {LONGEST}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue  # what is merged may be replaced; other keys are refused by the library
            key = self.construct_object(key_node)
            if key in seen:
                problem = f"the key {key!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read(path: Path, name: str = "STUDY") -> Any:
    """The content of a study file, or of another that a reader may change.

    Args:
        path: of the file.
        name: what a message calls it.

    Raises:
        InputError: the file cannot be read, is no YAML, or has a key twice.
    """
    try:
        # yaml.load with a loader that is derived from the safe one makes no other objects than it does.
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"{name} is {str(path)!r}, but must be a readable YAML file ({_reason(error)})."
        ) from None


def _reason(error: Exception) -> str:
    """Why a file could not be read, in short."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        text = f"line {error.problem_mark.line + 1}: {error.problem}"
    return textwrap.shorten(text.splitlines()[0], LONGEST, placeholder=" ...")
