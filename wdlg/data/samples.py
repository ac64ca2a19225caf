"""Sample files: a few hundred images of a data set in one `NAME.npz`, which every experiment reads.

A file holds `images` (uint8 N,H,W,C), `labels` (int64 N), `class_names`, `num_classes`, and for each image
`split` and `source`. It is never unpickled, so a file from elsewhere cannot run code.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
from numpy.lib.npyio import NpzFile

from wdlg.data.catalogue import CATALOGUE
from wdlg.data.embedded import EMBEDDED_IMAGES
from wdlg.data.files import open_file
from wdlg.errors import InputError, require_choice, require_count, told

if TYPE_CHECKING:
    import torch

TEXTS = ("class_names", "split", "source")
KEYS = ("images", "labels", "num_classes", *TEXTS)
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Sample:
    """Images with their labels, checked when it is made.

    What numpy can read is taken (lists, tensors on the CPU) and kept as an array of the type below, if that
    changes no value: a label may have any type of whole numbers, an image must be of bytes.

    Attributes:
        name: of the data set. Images of a data set of the catalogue have its shape.
        images: uint8 (N, H, W, C) with C = 1 or 3.
        labels: int64 (N,), in [0, num_classes).
        class_names: name of each class, (num_classes,), or empty.
        num_classes: number of classes, at least 2.
        split, source: for each image, the part of the data set and where exactly it is from, text (N,).

    Raises:
        InputError: something is of another type, shape or range. Channels that come first and images in
            [0, 1] are recognised, and the message says how to convert them.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    num_classes: int
    split: np.ndarray
    source: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"name is {told(self.name)}, but must be the name of a data set.")
        images = _images(self.images)
        if self.name in CATALOGUE:
            shape = CATALOGUE[self.name].shape
            if images.shape[1:] != shape:
                raise InputError(f"images is of shape {images.shape}, but must be of shape (N, *{shape}).")
        num_classes = require_count("num_classes", self.num_classes, at_least=2)
        checked = {
            "images": images,
            "num_classes": num_classes,
            "labels": _labels(self.labels, len(images), num_classes),
            "class_names": tuple(_texts("class_names", self.class_names, (0, num_classes)).tolist()),
            "split": _texts("split", self.split, (len(images),)),
            "source": _texts("source", self.source, (len(images),)),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    def tensor(
        self, indices: np.ndarray | list[int] | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Images (B, C, H, W) with values in [0, 1]; all of them, or those at ``indices``.

        In single precision, or of another floating type.
        """
        import torch  # takes a second, which a command that only lists data sets need not wait for

        chosen = self.images if indices is None else self.images[indices]
        return torch.from_numpy(chosen).permute(0, 3, 1, 2).to(dtype or torch.float32) / 255

    def digest(self) -> str:
        """SHA-256 of images and labels: equal for samples that give the same attacks."""
        sha = hashlib.sha256(repr((self.images.shape, self.num_classes)).encode())
        sha.update(np.ascontiguousarray(self.images).tobytes())
        sha.update(self.labels.astype("<i8").tobytes())
        return sha.hexdigest()


def _images(given: Any) -> np.ndarray:
    """Images as a sample has them."""
    images = _array("images", given)
    if images.dtype != np.uint8:
        how = {
            "f": ": values from 0 to 1 become that by np.round(255 * images).astype(np.uint8)",
            "i": ": whole numbers from 0 to 255 become that by images.astype(np.uint8)",
        }
        raise InputError(
            f"images is of type {images.dtype}, but must be of type uint8{how.get(images.dtype.kind, '')}."
        )
    shape = images.shape
    if len(shape) != 4 or shape[-1] not in CHANNELS or 0 in shape:
        how_to = ""
        if len(shape) == 4 and shape[1] in CHANNELS:
            how_to = ": its channels come first, and come last by images.transpose(0, 2, 3, 1)"
        elif len(shape) == 3 and shape[-1] in CHANNELS:
            how_to = ": one image becomes that by images[None]"
        elif len(shape) == 3:
            how_to = ": grey images become that by images[..., None]"
        raise InputError(
            f"images is of shape {shape}, but must be of shape (N, height, width, 1 or 3) with nothing "
            f"empty{how_to}."
        )
    # torch reads only arrays that can be written to and whose rows stand one after the other.
    return np.require(images, requirements=("C", "W"))


def _labels(given: Any, count: int, num_classes: int) -> np.ndarray:
    """Labels as a sample has them."""
    labels = _array("labels", given)
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"labels is of type {labels.dtype}, but must be of type int64 or another of whole numbers."
        )
    if labels.shape != (count,):
        raise InputError(f"labels is of shape {labels.shape}, but must be of shape ({count},).")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels is between {labels.min()} and {labels.max()}, but must be between 0 and "
            f"{num_classes - 1}."
        )
    return np.require(labels, np.int64, ("C", "W"))


def _texts(key: str, given: Any, lengths: tuple[int, ...]) -> np.ndarray:
    """Texts as a sample has them, as many as one of the lengths."""
    texts = _array(key, given)
    if texts.dtype.kind == "O" and all(isinstance(text, str) for text in texts.flat):
        texts = texts.astype(str)
    if texts.dtype.kind != "U" and texts.size:
        raise InputError(f"{key} is of type {texts.dtype}, but must be text (numpy's type str).")
    if texts.ndim != 1 or len(texts) not in lengths:
        raise InputError(f"{key} is of shape {texts.shape}, but must be of shape ({lengths[-1]},).")
    return texts.astype(str, copy=False)


def _array(key: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    # A list of unequal lengths, a tensor on a GPU, or one that autograd follows.
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).split(". ", maxsplit=1)[0]
        raise InputError(
            f"{key} is of type {type(given).__name__} and becomes no array ({reason}), but must be one."
        ) from None


def data_dir(given: str | Path | None = None) -> Path:
    """Folder of the sample files: the one given, else ``WDLG_DATA``, else the user's data folder.

    Raises:
        InputError: it is there, but is no folder.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        raise InputError(f"data_dir is {told(given)}, but must be the name of a folder.")
    named = given or os.environ.get("WDLG_DATA") or platformdirs.user_data_dir("wdlg")
    # Not the methods of Path: they fail where there is no home, and on a name that is too long.
    folder = Path(os.path.expanduser(named))
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"data_dir is {str(folder)!r}, but must be a folder.")
    return folder


def is_present(name: str, folder: str | Path | None = None) -> bool:
    """True if the data set is embedded or has a sample file; False if it has none.

    Of the file only the table of contents is read, which stands at its end: enough to tell it from an
    empty, truncated or foreign one. Such a file is no missing one, which a study leaves out, but a mistake to
    be told before anything is computed.

    Raises:
        InputError: unknown data set; or a file in the sample file's place that is not one.
    """
    entry = CATALOGUE[require_choice("dataset", name, CATALOGUE)]
    if entry.embedded:
        return True
    path = _place(name, folder)
    if not os.path.exists(path):  # not Path's, which fails on a name that is too long
        return False
    with _archive(path):
        return True


def _place(name: str, folder: str | Path | None) -> Path:
    return data_dir(folder) / f"{name}.npz"


def load(name: str, folder: str | Path | None = None) -> Sample:
    """The sample of a data set, from the libraries (embedded) or from its sample file.

    Args:
        name: of the data set, see ``CATALOGUE``.
        folder: of the sample files, see :func:`data_dir`.

    Raises:
        InputError: unknown data set; no sample file; or a file that is not one.
    """
    entry = CATALOGUE[require_choice("dataset", name, CATALOGUE)]
    if entry.embedded:
        images, labels, class_names, source = EMBEDDED_IMAGES[name]()
        return Sample(
            name=name,
            images=images,
            labels=labels,
            class_names=class_names,
            num_classes=entry.num_classes,
            split=np.full(len(labels), "embedded"),
            source=source,
        )
    path = _place(name, folder)
    if not is_present(name, folder):
        raise InputError(
            f"dataset is {name!r}, but has no sample file {path}: make it with `wdlg data fetch {name}`, "
            "or set WDLG_DATA to a folder that has it."
        )
    return read_sample(path)


def read_sample(path: str | Path) -> Sample:
    """Read and check a sample file; the data set's name is the file's.

    Raises:
        InputError: the file is missing, truncated, pickled, or its content is not a sample's.
    """
    path = Path(path)
    with _archive(path) as archive:
        parts: dict[str, Any] = {key: archive[key] for key in KEYS}
        # numpy hands out the bytes of a member that is no array.
        foreign = [key for key, part in parts.items() if not isinstance(part, np.ndarray)]
        if foreign:
            raise InputError(f"sample file {path} has no array in {', '.join(foreign)}, but must have one.")
        for key in TEXTS:
            parts[key].tolist()  # numpy finds only now that a text has characters that do not exist
        # A whole number is written as an array without an axis.
        parts["num_classes"] = parts["num_classes"][()]
    try:
        return Sample(name=path.stem, **parts)
    except InputError as error:
        raise InputError(f"sample file {path}: {error}") from None


@contextmanager
def _archive(path: Path) -> Iterator[NpzFile]:
    """An open sample file with all its parts, of which only the table of contents has been read.

    Any failure, also of reading a part, becomes an :class:`InputError`.
    """
    try:
        # Opened here, since NpzFile leaves a file open that it cannot read. It unpickles nothing by default.
        with open_file(path) as file, NpzFile(file) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise InputError(
                    f"sample file {path} has no {', '.join(missing)}, but must have {', '.join(KEYS)}."
                )
            yield archive
    except InputError:
        raise
    # Everything: a damaged or crafted file makes numpy, zipfile, tokenize and the decompressors raise errors
    # of a dozen kinds (TokenError, SystemError, LZMAError), and each of them means just this.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(
            f"sample file {path} cannot be read ({reason.splitlines()[0]}), but must be a whole .npz file "
            "without pickled objects."
        ) from None


def write_sample(sample: Sample, path: str | Path) -> None:
    """Write a sample file, whole or not at all.

    Raises:
        InputError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(
                file,
                images=sample.images,
                labels=sample.labels,
                class_names=np.array(sample.class_names, dtype=str),
                num_classes=np.int64(sample.num_classes),
                split=sample.split,
                source=sample.source,
            )
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(
            f"sample file {path} could not be written ({error.strerror or error}); its folder must be "
            "writable and have room."
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
