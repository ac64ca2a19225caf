"""Make sample files from the official downloads.

The libraries do the downloading and check what they got (md5, sha256). They trust a folder that they find,
though, and a killed extraction leaves half a folder. So a download is worked on in ``NAME.incomplete``, where
each start keeps only the archives, and the folder takes its final name when everything could be read and has
as many classes as the catalogue says.
"""

from __future__ import annotations

import http.client
import tarfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wdlg.data.catalogue import CATALOGUE, FETCHED
from wdlg.data.order import balanced_order
from wdlg.data.samples import Sample, data_dir, write_sample
from wdlg.data.torchvision_import import torchvision_module
from wdlg.errors import InputError, require_choice, require_count

ARCHIVES = (".gz", ".mat", ".tgz")
"""How the names of official archives end; what else an interrupted start left behind is not trusted."""

SIDE = 32
ORIGINAL_SIDE = 250
"""LFW's pictures are 250x250, and are reduced to 32x32 with antialiasing."""


@dataclass(frozen=True)
class Archive:
    """A file to download: its name on disk, where it is, and the SHA-256 of its content."""

    file_name: str
    address: str
    sha256: str


LFW_ARCHIVE = Archive(
    "lfw.tgz",
    "https://ndownloader.figshare.com/files/5976018",
    "055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
)
"""LFW's original pictures: what scikit-learn reads, under the name by which it looks for it."""

FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    KeyError,
    AssertionError,
    tarfile.TarError,
    zlib.error,
    http.client.HTTPException,
)
"""What torchvision, scikit-learn, pooch and the archives raise: no network, no room, a damaged file."""


@dataclass(frozen=True)
class _Official:
    """A data set as its official download has it: images (N,H,W,C), labels (N,), names and provenance."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    split: str
    source: str


def fetch(
    name: str,
    folder: str | Path | None = None,
    *,
    images: int = 1000,
    seed: int = 20230101,
    raw_dir: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Download a data set, draw a sample spread over its classes, and write the sample file.

    Finished downloads are kept in ``raw_dir``, so another draw needs no network.

    Args:
        name: one of ``FETCHED``.
        folder: of the sample files, see :func:`~wdlg.data.data_dir`.
        images: how many are drawn; all of them if there are fewer.
        seed: decides the draw.
        raw_dir: folder of the official downloads; ``raw`` beside the sample file if not given.
        progress: show a bar for LFW's download; torchvision always shows its own.

    Returns:
        The sample file.

    Raises:
        InputError: unknown data set; the download failed or is damaged; a folder cannot be written to.
    """
    require_choice("dataset", name, FETCHED)
    require_count("images", images)
    require_count("seed", seed, at_least=0)
    target = data_dir(folder) / f"{name}.npz"
    official = _complete(name, Path(raw_dir or target.parent / "raw"), progress)
    chosen = balanced_order(official.labels, seed)[:images]
    chosen = np.random.default_rng(seed).permutation(chosen)
    sample = Sample(
        name=name,
        images=official.images[chosen],
        labels=official.labels[chosen].astype(np.int64),
        class_names=official.class_names,
        num_classes=len(official.class_names),
        split=np.full(len(chosen), official.split),
        source=np.array([f"{official.source}[{place}]" for place in chosen]),
    )
    write_sample(sample, target)
    return target


def _complete(name: str, raw: Path, progress: bool) -> _Official:
    """The official data set, from a finished download or from one that is begun or continued now."""
    finished, working = raw / name, raw / f"{name}.incomplete"
    if finished.exists():
        try:
            return _read(name, finished, progress)
        except FAILURES as error:
            raise InputError(
                f"dataset {name} cannot be read from the download in {finished} ({_reason(error)}); delete "
                "that folder and run the command again to download it anew."
            ) from None
    try:
        working.mkdir(parents=True, exist_ok=True)
        _keep_archives(working)
        official = _read(name, working, progress)
        working.rename(finished)
        return official
    except FAILURES as error:
        raise InputError(
            f"dataset {name} could not be fetched into {raw} ({_reason(error)}); the network must be "
            "reachable and the folder writable: run the command again, and finished files are kept."
        ) from None


def _read(name: str, folder: Path, progress: bool) -> _Official:
    """What the libraries find in the folder, or put there; with every class, or not at all."""
    with warnings.catch_warnings():
        # scikit-learn warns of each retry; a download that fails in the end is told in a sentence.
        warnings.simplefilter("ignore")
        official = _READERS[name](folder, progress)
    found, wanted = len(official.class_names), CATALOGUE[name].num_classes
    # scikit-learn counts the folders of people that are there, so a missing one would renumber the rest.
    if found != wanted:
        raise ValueError(f"it has {found} classes of {wanted}")
    return official


def _reason(error: BaseException) -> str:
    """The error's message on one line, or its kind if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _keep_archives(folder: Path) -> None:
    """Remove what an interrupted extraction left; archives stay, and are checked before they are used."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix not in ARCHIVES:
            path.unlink()


def _torchvision(class_name: str, part: str, **arguments: Any) -> Callable[[Path, bool], _Official]:
    """Reader of a torchvision data set."""

    def read(folder: Path, progress: bool) -> _Official:  # noqa: ARG001
        loaded = getattr(torchvision_module("torchvision.datasets"), class_name)(
            str(folder), download=True, **arguments
        )
        images = np.asarray(loaded.data)
        labels = np.asarray(loaded.labels if hasattr(loaded, "labels") else loaded.targets)
        if images.ndim == 3:
            images = images[..., None]
        elif images.shape[1] == 3:  # SVHN's channels come first
            images = images.transpose(0, 2, 3, 1)
        names = getattr(loaded, "classes", None) or [str(digit) for digit in range(10)]
        # MNIST's classes are called "0 - zero" and so on.
        names = [one.split(" - ")[0] for one in names]
        return _Official(np.ascontiguousarray(images), labels, tuple(names), part, f"{class_name} {part}")

    return read


def _lfw(folder: Path, progress: bool) -> _Official:
    """All pictures of LFW, the originals (not "funneled"), whole, in colour, for all people."""
    import pooch
    from sklearn.datasets import fetch_lfw_people

    home = folder / "lfw_home"
    if not (home / "lfw").exists():
        # scikit-learn downloads without a bar, and does not check an archive that is there. pooch does both.
        pooch.retrieve(
            LFW_ARCHIVE.address,
            known_hash=f"sha256:{LFW_ARCHIVE.sha256}",
            fname=LFW_ARCHIVE.file_name,
            path=home,
            progressbar=progress,
        )
    people: Any = fetch_lfw_people(
        data_home=str(folder),
        funneled=False,
        color=True,
        min_faces_per_person=0,
        slice_=None,
        resize=SIDE / ORIGINAL_SIDE,
    )
    images = np.round(people.images * 255).astype(np.uint8)
    # scikit-learn writes spaces for the underscores and sorts by those. LFW's own list of names is sorted
    # with the underscores, which puts people with hyphens elsewhere. A label is the place in LFW's list.
    names = np.array([str(name).replace(" ", "_") for name in people.target_names])
    line = np.argsort(np.argsort(names))
    return _Official(images, line[people.target], tuple(np.sort(names).tolist()), "all", "fetch_lfw_people")


_READERS: dict[str, Callable[[Path, bool], _Official]] = {
    "mnist": _torchvision("MNIST", "test", train=False),
    "fashion_mnist": _torchvision("FashionMNIST", "test", train=False),
    "svhn": _torchvision("SVHN", "test", split="test"),
    "cifar100": _torchvision("CIFAR100", "test", train=False),
    "lfw": _lfw,
}
assert set(_READERS) == set(FETCHED)
