"""A user's own picture as a private image."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
from PIL import Image, ImageOps

from wdlg.data.files import open_file
from wdlg.errors import InputError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
"""Formats that are read: of these it is known how deep their pixels are before Pillow makes bytes of them."""

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Pillow's names of pixels that are read: black and white, grey, of a palette, or RGB, with alpha or without.
CMYK and Lab are colours of a device or an eye; what they are in RGB depends on a profile."""

PNG_BIT_DEPTH = 24
"""Place of the bit depth in a PNG file: in its first chunk, behind width and height."""

TIFF_BITS_PER_SAMPLE = 258


def read_image(path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a picture file as uint8 (height, width, channels), turned as its metadata says.

    Colours become luminance where one channel is wanted; grey becomes three equal channels where three are.
    What would change the picture silently is refused instead: another size (resizing would attack another
    picture than the one given), more than 8 bits a channel, more than one frame or page, colours that are not
    RGB, and pixels that are not opaque.

    Args:
        path: of a picture, see ``FORMATS``.
        shape: (height, width, channels) that the network takes.

    Raises:
        InputError: no such file, no picture, or a picture of another size, depth, number of frames or kind of
            colours, or with transparency.
    """
    height, width, channels = shape
    try:
        file = open_file(path)
    except OSError as error:
        raise InputError(
            f"image {path} cannot be opened ({error.strerror or error}), but must be a picture file."
        ) from None
    # Pillow warns of large pictures, which are refused by their size, and of damaged metadata, of which only
    # the orientation is read here.
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            upright = _upright(path, file, (width, height))
            converted = _opaque(path, upright).convert("L" if channels == 1 else "RGB")
        except InputError:
            raise
        except Image.DecompressionBombError:
            raise InputError(
                f"image {path} has more pixels than Pillow opens (a decompression bomb?), but the network "
                f"takes {width} x {height}."
            ) from None
        # Everything: Pillow's decoders raise errors of many kinds, and each means that it cannot be read.
        except Exception:
            raise InputError(
                f"image {path} is no picture that can be read, but must be one of {', '.join(FORMATS)}."
            ) from None
    return np.asarray(converted, dtype=np.uint8).reshape(shape)


def write_image(image: np.ndarray, path: str | Path) -> None:
    """Write a picture as PNG, whole or not at all, with as many pixels as it has.

    Args:
        image: (height, width, 1 or 3), values from 0 to 1; what is beyond is cut off, and black where it is
            not a number.
        path: of the file; one of that name is replaced.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    values = np.round(255 * np.clip(np.nan_to_num(image, posinf=1.0, neginf=0.0), 0, 1)).astype(np.uint8)
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(file, format="PNG")
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"image {path} could not be written ({error.strerror or error}).") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _upright(path: str | Path, file: BinaryIO, size: tuple[int, int]) -> Image.Image:
    """The one picture in a file, turned as a viewer shows it, if it is of a size (width, height)."""
    with Image.open(file, formats=FORMATS) as picture:
        # First as it lies in the file, so that no picture is decoded that is far too large.
        if sorted(picture.size) != sorted(size):
            _refuse_size(path, picture, size)
        bits = _bits(file, picture)
        if bits > 8:
            raise InputError(f"image {path} has {bits} bits a channel, but must have at most 8.")
        if picture.mode not in MODES:
            raise InputError(f"image {path} has pixels of the kind {picture.mode}, but must be grey or RGB.")
        # A JPEG with a second picture in it is a "multi-picture" one.
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise InputError(f"image {path} has {frames} frames or pages, but must have one.")
        upright = ImageOps.exif_transpose(picture)
    if upright.size != size:
        _refuse_size(path, upright, size)
    return upright


def _refuse_size(path: str | Path, picture: Image.Image, size: tuple[int, int]) -> NoReturn:
    raise InputError(
        f"image {path} is {picture.width} x {picture.height} pixels, but the network takes "
        f"{size[0]} x {size[1]}."
    )


def _bits(file: BinaryIO, picture: Image.Image) -> int:
    """Bits a channel in the file. Pillow makes 8 of 16 in colour pictures, and says nothing."""
    if picture.format == "PNG":
        place = file.tell()
        file.seek(PNG_BIT_DEPTH)
        depth = file.read(1)[0]
        file.seek(place)
        return depth
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
    return 8


def _opaque(path: str | Path, picture: Image.Image) -> Image.Image:
    """The picture without its alpha channel, if that hides nothing."""
    if not picture.has_transparency_data:
        return picture
    with_alpha = picture.convert("RGBA")
    lowest = np.asarray(with_alpha)[..., 3].min()
    if lowest < 255:
        raise InputError(f"image {path} has pixels with an alpha of {lowest}, but all must be opaque (255).")
    return with_alpha
