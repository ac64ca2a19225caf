"""Fetching works on the official formats, from download to sample file: miniatures served on this machine."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import socket
import struct
import tarfile
import threading
from importlib import import_module

import numpy as np
import pytest
import scipy.io
from PIL import Image

from wdlg import data
from wdlg.data import torchvision_import
from wdlg.data.torchvision_import import torchvision_module
from wdlg.errors import InputError

datasets = torchvision_module("torchvision.datasets")


def idx(array):
    """An array in the format of MNIST's files, compressed."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def tar(members):
    """A tar.gz of files by path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in members.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def jpeg(color):
    buffer = io.BytesIO()
    Image.new("RGB", (250, 250), color).save(buffer, "JPEG")
    return buffer.getvalue()


def md5(content):
    return hashlib.md5(content).hexdigest()


class Server:
    """Serves contents by path, and counts what was asked for."""

    def __init__(self):
        self.contents, self.asked = {}, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                content = server.contents.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def do_HEAD(self):
                self.do_GET()

            def log_message(self, *arguments):
                """Say nothing."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Asked for its end a hundred times a second, or each test would wait half a second for it.
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, path, content):
        """Serve a content, and return its address."""
        self.contents[path] = content
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server():
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()


def grey_images(count):
    """Images that tell their own number: pixel (0, 0) is it."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(count)
    return images, np.arange(count) % 10


@pytest.fixture
def mnist(server, monkeypatch):
    images, labels = grey_images(60)
    files = {
        "train-images-idx3-ubyte.gz": idx(images[:2]),
        "train-labels-idx1-ubyte.gz": idx(labels[:2]),
        "t10k-images-idx3-ubyte.gz": idx(images),
        "t10k-labels-idx1-ubyte.gz": idx(labels),
    }
    for class_name in ("MNIST", "FashionMNIST"):
        base = getattr(datasets, class_name)
        for name, content in files.items():
            address = server.add(f"/{class_name}/{name}", content)
        monkeypatch.setattr(base, "mirrors", [address.rsplit("/", 1)[0] + "/"])
        monkeypatch.setattr(base, "resources", [(name, md5(content)) for name, content in files.items()])
    return images, labels


@pytest.fixture
def svhn(server, monkeypatch):
    stream = np.random.default_rng(0)
    images = stream.integers(0, 256, (32, 32, 3, 30), dtype=np.uint8)
    digits = np.arange(30) % 10
    buffer = io.BytesIO()
    # SVHN calls the digit 0 "10".
    scipy.io.savemat(buffer, {"X": images, "y": np.where(digits == 0, 10, digits)[:, None].astype(np.uint8)})
    address = server.add("/test_32x32.mat", buffer.getvalue())
    entry = [address, "test_32x32.mat", md5(buffer.getvalue())]
    monkeypatch.setattr(datasets.SVHN, "split_list", {"test": entry})
    return images.transpose(3, 0, 1, 2), digits


@pytest.fixture
def cifar100(server, monkeypatch):
    stream = np.random.default_rng(1)
    images = stream.integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(200) % 100
    test = pickle.dumps({"data": images.reshape(200, -1), "fine_labels": labels.tolist()})
    names = [f"class {number:02d}" for number in range(100)]
    meta = pickle.dumps({"fine_label_names": names})
    archive = tar(
        {f"cifar-100-python/{name}": part for name, part in (("test", test), ("train", test), ("meta", meta))}
    )
    base = datasets.CIFAR100
    monkeypatch.setattr(base, "url", server.add("/cifar-100-python.tar.gz", archive))
    monkeypatch.setattr(base, "tgz_md5", md5(archive))
    monkeypatch.setattr(base, "train_list", [["train", md5(test)]])
    monkeypatch.setattr(base, "test_list", [["test", md5(test)]])
    monkeypatch.setattr(base, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5(meta)})
    return images.transpose(0, 2, 3, 1), labels


# In the order of LFW's list; scikit-learn's has "Ada Lovelace" before "Ada-Jeanne".
PEOPLE = {
    "Ada-Jeanne_Reynaud": (200, 200, 30),
    "Ada_Lovelace": (200, 30, 30),
    "Alan_Turing": (30, 200, 30),
    "Grace_Hopper": (30, 30, 200),
}


@pytest.fixture
def lfw(server, monkeypatch):
    from sklearn.datasets import _lfw as module

    members = {
        f"lfw/{name}/{name}_{number:04d}.jpg": jpeg(color)
        for name, color in PEOPLE.items()
        for number in (1, 2)
    }
    archive = tar(members)

    def remote(filename, content):
        address = server.add(f"/{filename}", content)
        return module.RemoteFileMetadata(filename, address, hashlib.sha256(content).hexdigest())

    address, sha256 = server.add("/lfw.tgz", archive), hashlib.sha256(archive).hexdigest()
    module_of_fetch = import_module("wdlg.data.fetch")  # wdlg.data.fetch itself is the function
    monkeypatch.setattr(module_of_fetch, "LFW_ARCHIVE", module_of_fetch.Archive("lfw.tgz", address, sha256))
    monkeypatch.setattr(module, "TARGETS", (remote("pairs.txt", b"none\n"),))
    entry = dataclasses.replace(data.CATALOGUE["lfw"], num_classes=len(PEOPLE))
    monkeypatch.setitem(data.CATALOGUE, "lfw", entry)
    return archive


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_become_a_sample_of_the_test_images(name, mnist, tmp_path):
    images, labels = mnist
    assert data.fetch(name, tmp_path, images=30) == tmp_path / f"{name}.npz"
    sample = data.load(name, tmp_path)
    numbers = sample.images[:, 0, 0, 0]
    np.testing.assert_array_equal(sample.images[..., 0], images[numbers])
    np.testing.assert_array_equal(sample.labels, labels[numbers])
    assert np.bincount(sample.labels).tolist() == [3] * 10
    assert len(set(numbers)) == 30
    assert set(sample.split) == {"test"}
    assert sample.source[0].endswith(f"test[{numbers[0]}]")


def test_mat_files_become_a_sample_in_which_zero_is_zero(svhn, tmp_path):
    images, digits = svhn
    data.fetch("svhn", tmp_path, images=30)
    sample = data.load("svhn", tmp_path)
    for image, label in zip(sample.images, sample.labels, strict=True):
        (place,) = np.flatnonzero((images == image).all(axis=(1, 2, 3)))
        assert label == digits[place]


def test_pickled_batches_become_a_sample_of_all_hundred_classes(cifar100, tmp_path):
    images, labels = cifar100
    data.fetch("cifar100", tmp_path, images=100)
    sample = data.load("cifar100", tmp_path)
    assert np.bincount(sample.labels, minlength=100).tolist() == [1] * 100
    assert sample.class_names[7] == "class 07"
    (place,) = np.flatnonzero((images == sample.images[0]).all(axis=(1, 2, 3)))
    assert sample.labels[0] == labels[place]


def test_a_folder_of_faces_becomes_a_sample_of_whole_pictures_at_32_pixels(lfw, tmp_path, monkeypatch):
    entry = data.CATALOGUE["lfw"]
    data.fetch("lfw", tmp_path, images=4, progress=False)
    sample = data.load("lfw", tmp_path)
    assert sample.class_names == tuple(PEOPLE)
    assert sample.images.shape[1:] == entry.shape
    assert sorted(sample.class_names[label] for label in sample.labels) == sorted(PEOPLE)
    for image, label in zip(sample.images, sample.labels, strict=True):
        np.testing.assert_allclose(image.mean(axis=(0, 1)), PEOPLE[sample.class_names[label]], atol=3)


def test_the_draw_is_decided_by_its_seed_and_needs_no_second_download(mnist, server, tmp_path):
    draws = []
    for seed in (1, 1, 2):
        data.fetch("mnist", tmp_path, images=20, seed=seed)
        draws.append(data.load("mnist", tmp_path).images)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert (
        server.asked.count("/MNIST/t10k-images-idx3-ubyte.gz") <= 2
    )  # asked for its address, then for itself


def test_a_download_that_was_cut_short_is_done_again(mnist, tmp_path):
    images, _ = mnist
    raw = tmp_path / "raw" / "mnist.incomplete" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte.gz").write_bytes(idx(images)[:100])
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"half an extraction")
    data.fetch("mnist", tmp_path, images=10)
    assert len(data.load("mnist", tmp_path)) == 10
    assert not (tmp_path / "raw" / "mnist.incomplete").exists()


def test_half_a_folder_of_faces_is_not_trusted(lfw, tmp_path):
    folder = tmp_path / "raw" / "lfw.incomplete" / "lfw_home" / "lfw" / "Ada_Lovelace"
    folder.mkdir(parents=True)
    (folder / "Ada_Lovelace_0001.jpg").write_bytes(jpeg((0, 0, 0)))
    data.fetch("lfw", tmp_path, images=8, progress=False)
    assert np.bincount(data.load("lfw", tmp_path).labels).tolist() == [2, 2, 2, 2]


def test_a_cut_archive_of_faces_is_downloaded_again(lfw, tmp_path):
    home = tmp_path / "raw" / "lfw.incomplete" / "lfw_home"
    home.mkdir(parents=True)
    (home / "lfw.tgz").write_bytes(lfw[: len(lfw) // 2])
    data.fetch("lfw", tmp_path, images=8, progress=False)
    assert len(data.load("lfw", tmp_path)) == 8


def test_faces_of_which_a_person_is_missing_are_refused_since_labels_would_shift(lfw, tmp_path):
    data.fetch("lfw", tmp_path, images=4, progress=False)
    shutil.rmtree(tmp_path / "raw" / "lfw" / "lfw_home" / "lfw" / "Ada_Lovelace")
    with pytest.raises(InputError, match="it has 3 classes of 4.*delete that folder"):
        data.fetch("lfw", tmp_path, images=4, progress=False)


@pytest.mark.parametrize("damage", [b"", b"\x00\x00\x08", b"half a file of images"])
def test_a_finished_download_that_was_damaged_later_says_which_folder_to_delete(mnist, tmp_path, damage):
    data.fetch("mnist", tmp_path, images=10)
    finished = tmp_path / "raw" / "mnist"
    (finished / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(damage)
    with pytest.raises(InputError, match=f"download in {finished} .*delete that folder"):
        data.fetch("mnist", tmp_path, images=10)
    shutil.rmtree(finished)
    data.fetch("mnist", tmp_path, images=10)


def test_official_downloads_go_where_they_are_told_to(mnist, tmp_path):
    data.fetch("mnist", tmp_path / "samples", images=10, raw_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "mnist").is_dir()
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["mnist.npz"]


def test_a_server_that_does_not_speak_http_is_named_in_a_sentence(mnist, tmp_path, monkeypatch):
    def answer(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"nonsense\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{listening.getsockname()[1]}/"])
        thread = threading.Thread(target=answer, args=(listening,), daemon=True)
        thread.start()
        with pytest.raises(InputError, match="dataset mnist could not be fetched .*nonsense"):
            data.fetch("mnist", tmp_path)
        thread.join()


def test_a_damaged_download_is_refused_and_leaves_no_sample(mnist, server, tmp_path):
    server.contents["/MNIST/t10k-images-idx3-ubyte.gz"] = b"not what was promised"
    with pytest.raises(InputError, match="dataset mnist could not be fetched"):
        data.fetch("mnist", tmp_path)
    assert not (tmp_path / "mnist.npz").exists()


def test_a_server_without_the_file_is_named_in_a_sentence(lfw, server, tmp_path):
    del server.contents["/lfw.tgz"]
    with pytest.raises(InputError, match="dataset lfw could not be fetched"):
        data.fetch("lfw", tmp_path, progress=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("digits",), "dataset is 'digits'"),
        (("mnist", None, 0), "images is 0"),
    ],
)
def test_impossible_requests_are_refused_by_name(arguments, sentence, tmp_path):
    name, _, *images = (*arguments, None)[:3]
    with pytest.raises(InputError, match=f"^{sentence}"):
        data.fetch(name, tmp_path, **({"images": images[0]} if images and images[0] is not None else {}))


def test_torchvision_is_importable_and_the_import_can_be_repeated():
    assert torchvision_module("torchvision.datasets") is datasets
    assert hasattr(datasets, "CIFAR100")


def test_where_torchvision_loads_no_operators_are_declared(monkeypatch):
    monkeypatch.setattr(torchvision_import.importlib, "import_module", {"torchvision.datasets": datasets}.get)
    before = len(torchvision_import._DECLARED)
    assert torchvision_module("torchvision.datasets") is datasets
    assert len(torchvision_import._DECLARED) == before


def test_another_reason_why_torchvision_does_not_load_is_not_hidden(monkeypatch):
    def broken(name):
        raise RuntimeError("another reason")

    monkeypatch.setattr(torchvision_import.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="another reason"):
        torchvision_module("torchvision.datasets")
