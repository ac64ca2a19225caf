"""Sample files: a few hundred images of a data set in one `NAME.npz`, which every experiment reads.

A file holds `images` (uint8 N,H,W,C), `labels` (int64 N), `class_names`, `num_classes`, and for each image
`split` and `source`. It is never unpickled, so a file from elsewhere cannot run code.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch

from wdlg.data.catalogue import CATALOGUE
from wdlg.data.embedded import EMBEDDED_IMAGES
from wdlg.errors import InputError, require_choice

TEXTS = ("class_names", "split", "source")
KEYS = ("images", "labels", "num_classes", *TEXTS)


@dataclass(frozen=True)
class Sample:
    """Images with their labels.

    Attributes:
        name: of the data set.
        images: uint8 (N, H, W, C).
        labels: int64 (N,), in [0, num_classes).
        class_names: name of each class, (num_classes,), or empty.
        num_classes: number of classes.
        split, source: for each image, the part of the data set and where exactly it is from, (N,).
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    num_classes: int
    split: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def tensor(
        self, indices: np.ndarray | list[int] | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Images (B, C, H, W) with values in [0, 1]; all of them, or those at ``indices``."""
        chosen = self.images if indices is None else self.images[indices]
        return torch.from_numpy(chosen).permute(0, 3, 1, 2).to(dtype) / 255

    def digest(self) -> str:
        """SHA-256 of images and labels: equal for samples that give the same attacks."""
        sha = hashlib.sha256(repr((self.images.shape, self.num_classes)).encode())
        sha.update(np.ascontiguousarray(self.images).tobytes())
        sha.update(self.labels.astype("<i8").tobytes())
        return sha.hexdigest()


def data_dir(given: str | Path | None = None) -> Path:
    """Folder of the sample files: the one given, else ``WDLG_DATA``, else the user's data folder."""
    return Path(given or os.environ.get("WDLG_DATA") or platformdirs.user_data_dir("wdlg"))


def is_present(name: str, folder: str | Path | None = None) -> bool:
    """True if the data set is embedded or has a sample file.

    Raises:
        InputError: unknown data set.
    """
    entry = CATALOGUE[require_choice("dataset", name, CATALOGUE)]
    return entry.embedded or (data_dir(folder) / f"{name}.npz").exists()


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
    path = data_dir(folder) / f"{name}.npz"
    if not path.exists():
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
    try:
        # Opened here, since np.load leaves the file open when it fails.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise InputError(
                    f"sample file {path} has no {', '.join(missing)}, but must have {', '.join(KEYS)}."
                )
            parts = {key: archive[key] for key in KEYS}
            # numpy hands out the bytes of a member that is no array.
            foreign = [key for key, part in parts.items() if not isinstance(part, np.ndarray)]
            if foreign:
                raise InputError(
                    f"sample file {path} has no array in {', '.join(foreign)}, but must have one."
                )
            for key in TEXTS:
                parts[key].tolist()  # numpy finds only now that a text has characters that do not exist
    except InputError:
        raise
    # Everything: a damaged or crafted file makes numpy, zipfile, tokenize and the decompressors raise errors
    # of a dozen kinds (TokenError, SystemError, LZMAError), and each of them means just this.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"sample file {path} cannot be read ({reason}), but must be a whole .npz file without pickled "
            "objects."
        ) from None
    return _checked(path, parts)


def _checked(path: Path, parts: dict[str, np.ndarray]) -> Sample:
    images, labels = parts["images"], parts["labels"]

    def demand(holds: bool, key: str, came: object, allowed: str) -> None:
        if not holds:
            raise InputError(f"sample file {path}: {key} is {came}, but must be {allowed}.")

    demand(images.dtype == np.uint8, "images", f"of type {images.dtype}", "of type uint8")
    demand(
        images.ndim == 4 and images.shape[-1] in (1, 3) and 0 not in images.shape,
        "images",
        f"of shape {images.shape}",
        "of shape (N, height, width, 1 or 3) with nothing empty",
    )
    demand(labels.dtype == np.int64, "labels", f"of type {labels.dtype}", "of type int64")
    for key in ("labels", "split", "source"):
        shape = parts[key].shape
        demand(shape == (len(images),), key, f"of shape {shape}", f"of shape ({len(images)},)")
    number = parts["num_classes"]
    whole = number.shape == () and np.issubdtype(number.dtype, np.integer)
    demand(whole and int(number) >= 2, "num_classes", str(number), "one whole number, at least 2")
    num_classes = int(number)
    demand(
        labels.min() >= 0 and labels.max() < num_classes,
        "labels",
        f"between {labels.min()} and {labels.max()}",
        f"between 0 and {num_classes - 1}",
    )
    names = parts["class_names"]
    for key in TEXTS:
        kind = parts[key].dtype
        demand(kind.kind == "U", key, f"of type {kind}", "text (numpy's type str)")
    demand(
        names.ndim == 1 and len(names) in (0, num_classes),
        "class_names",
        f"of shape {names.shape}",
        f"of shape ({num_classes},)",
    )
    name = path.stem
    if name in CATALOGUE:
        shape = CATALOGUE[name].shape
        demand(images.shape[1:] == shape, "images", f"of shape {images.shape}", f"of shape (N, *{shape})")
    return Sample(
        name=name,
        images=images,
        labels=labels,
        class_names=tuple(str(one) for one in names),
        num_classes=num_classes,
        split=parts["split"],
        source=parts["source"],
    )


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
                # As text in any case: an array of objects would be pickled, and refused when it is read.
                split=np.asarray(sample.split, dtype=str),
                source=np.asarray(sample.source, dtype=str),
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
