"""A user's own picture as a private image."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from wdlg.errors import InputError


def read_image(path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a picture file as uint8 (height, width, channels).

    Colours become luminance where one channel is wanted; grey becomes three equal channels where three are.
    What would change the picture silently is refused instead: another size (resizing would attack another
    picture than the one given), more than 8 bits a channel, and pixels that are not opaque.

    Args:
        path: of a picture that Pillow can read.
        shape: (height, width, channels) that the network takes.

    Raises:
        InputError: no such file, no picture, or a picture of another size, depth or with transparency.
    """
    height, width, channels = shape
    try:
        # Pillow warns of enormous pictures, which are refused by their size, and of damaged metadata, which
        # nobody reads here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                _require_fit(path, picture, (width, height))
                converted = _opaque(path, picture).convert("L" if channels == 1 else "RGB")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(
            f"image {path} cannot be opened ({error.strerror}), but must be a picture file."
        ) from None
    except InputError:
        raise
    # Everything: Pillow's many decoders raise errors of many kinds, and each means that it cannot be read.
    except Exception:
        raise InputError(
            f"image {path} is no picture that can be read, but must be a PNG, JPEG or the like."
        ) from None
    return np.asarray(converted, dtype=np.uint8).reshape(shape)


def _require_fit(path: str | Path, picture: Image.Image, size: tuple[int, int]) -> None:
    """Refuse a picture of another size (width, height) or of more than 8 bits a channel."""
    if picture.size != size:
        raise InputError(
            f"image {path} is {picture.width} x {picture.height} pixels, but the network takes "
            f"{size[0]} x {size[1]}."
        )
    # Modes of whole (I, I;16) and floating-point numbers (F): Pillow would cut off all values above 255.
    if picture.mode.startswith(("I", "F")):
        raise InputError(
            f"image {path} has pixels of Pillow's mode {picture.mode}, but must have 8 bits a channel."
        )


def _opaque(path: str | Path, picture: Image.Image) -> Image.Image:
    """The picture without its alpha channel, if that hides nothing."""
    if not picture.has_transparency_data:
        return picture
    with_alpha = picture.convert("RGBA")
    lowest = np.asarray(with_alpha)[..., 3].min()
    if lowest < 255:
        raise InputError(f"image {path} has pixels with an alpha of {lowest}, but all must be opaque (255).")
    return with_alpha
