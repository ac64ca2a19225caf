"""A user's own picture as a private image."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from wdlg.errors import InputError


def read_image(path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a picture file as uint8 (height, width, channels).

    Colours become luminance where one channel is wanted; grey becomes three equal channels where three are.
    The size must fit exactly: resizing would attack another picture than the one given.

    Args:
        path: of a picture that Pillow can read.
        shape: (height, width, channels) that the network takes.

    Raises:
        InputError: no such file, no picture, or a picture of another size.
    """
    height, width, channels = shape
    try:
        # A picture that claims to be enormous is refused by its size below, whatever Pillow thinks of it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.size != (width, height):
                    raise InputError(
                        f"image {path} is {picture.width} x {picture.height} pixels, but the network takes "
                        f"{width} x {height}."
                    )
                converted = picture.convert("L" if channels == 1 else "RGB")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(
            f"image {path} cannot be opened ({error.strerror}), but must be a picture file."
        ) from None
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"image {path} is no picture that can be read, but must be a PNG, JPEG or the like."
        ) from None
    return np.asarray(converted, dtype=np.uint8).reshape(shape)
