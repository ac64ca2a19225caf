"""Sample files: what is written is read; a damaged or foreign file ends in one sentence, never in code."""

import dataclasses
import hashlib
import io
import os
import pathlib
import pickle
import resource
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wdlg import data
from wdlg.data import Sample, read_sample, write_sample
from wdlg.errors import InputError


def sample(count=5, seed=0, name="other"):
    stream = np.random.default_rng(seed)
    return Sample(
        name=name,
        images=stream.integers(0, 256, (count, 6, 7, 3), dtype=np.uint8),
        labels=stream.integers(0, 4, count),
        class_names=("a", "b", "c", "d"),
        num_classes=4,
        split=np.full(count, "test"),
        source=np.array([f"file[{place}]" for place in range(count)]),
    )


def parts(**changes):
    """The arrays of a good file, with changes; None leaves one out."""
    good = sample()
    arrays = {
        "images": good.images,
        "labels": good.labels,
        "class_names": np.array(good.class_names),
        "num_classes": np.int64(4),
        "split": good.split,
        "source": good.source,
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


@given(count=st.integers(1, 6), seed=st.integers(0, 2**31))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path, count, seed):
    written = sample(count, seed)
    write_sample(written, tmp_path / "other.npz")
    read = read_sample(tmp_path / "other.npz")
    assert (read.name, read.class_names, read.num_classes) == ("other", ("a", "b", "c", "d"), 4)
    for field in ("images", "labels", "split", "source"):
        np.testing.assert_array_equal(getattr(read, field), getattr(written, field))


@given(cut=st.floats(0, 1, exclude_max=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path, cut):
    whole = tmp_path / "whole.npz"
    write_sample(sample(), whole)
    content = whole.read_bytes()
    part = tmp_path / "part.npz"
    part.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(InputError, match="part.npz"):
        read_sample(part)


@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_changed_byte_is_either_refused_in_a_sentence_or_harmless(tmp_path, position, value):
    path = tmp_path / "other.npz"
    write_sample(sample(), path)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] = value
    path.write_bytes(content)
    try:
        read = read_sample(path)
    except InputError as error:
        assert "other.npz" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(read.images, sample().images)


@given(draw=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_changed_range_never_ends_in_another_error(tmp_path, draw):
    path = tmp_path / "other.npz"
    write_sample(sample(), path)
    content = bytearray(path.read_bytes())
    start = draw.draw(st.integers(0, len(content) - 1))
    damage = draw.draw(st.binary(min_size=1, max_size=40))
    content[start : start + len(damage)] = damage
    path.write_bytes(content)
    try:
        read_sample(path)
    except InputError as error:
        assert "other.npz" in str(error)  # noqa: PT017


@given(key=st.sampled_from(list(parts())), draw=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_crafted_array_header_in_a_sound_archive_never_ends_in_another_error(tmp_path, key, draw):
    path = tmp_path / "other.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts().items():
            buffer = io.BytesIO()
            np.save(buffer, part)
            content = bytearray(buffer.getvalue())
            if name == key:
                # Brackets and quotes of the header are what the parser stumbles over.
                place = draw.draw(st.integers(0, 127))
                content[place] = draw.draw(st.sampled_from(b"()[]{}'\\,:0L #\n\xff"))
            archive.writestr(f"{name}.npy", bytes(content))
    try:
        read_sample(path)
    except InputError as error:
        assert "other.npz" in str(error)  # noqa: PT017


class Trap:
    """Sets a mark when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_a_pickle_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **parts(class_names=np.array([Trap()] * 4, dtype=object)))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    with zipfile.ZipFile("c.npz", "w") as archive:
        for key in parts():
            archive.writestr(f"{key}.npy", pickle.dumps(Trap()))
    for name in ("a.npz", "b.npz", "c.npz"):
        with pytest.raises(InputError, match=name):
            read_sample(tmp_path / name)
    assert not (tmp_path / "unpickled").exists()


WRONG = {
    "a missing key": ({"labels": None}, "has no labels"),
    "floats for images": ({"images": np.zeros((5, 6, 7, 3))}, "images is of type float64"),
    "two channels": ({"images": np.zeros((5, 6, 7, 2), np.uint8)}, r"images is of shape \(5, 6, 7, 2\)"),
    "no images": ({"images": np.zeros((0, 6, 7, 3), np.uint8)}, "images is of shape"),
    "labels as text": ({"labels": np.array(list("abcde"))}, "labels is of type"),
    "too few labels": ({"labels": np.zeros(4, np.int64)}, r"labels is of shape \(4,\)"),
    "a label outside": ({"labels": np.array([0, 1, 2, 3, 4])}, "labels is between 0 and 4"),
    "a negative label": ({"labels": np.array([0, 1, 2, 3, -1])}, "labels is between -1 and 3"),
    "one class": ({"num_classes": np.int64(1)}, "num_classes is 1"),
    "several counts": ({"num_classes": np.array([4, 4])}, "num_classes is"),
    "names of other classes": ({"class_names": np.array(["a"])}, "class_names is of shape"),
    "bytes for a split": ({"split": np.array([b"\xff"] * 5)}, "split is of type"),
    "records for sources": ({"source": np.zeros(5, [("a", "i4")])}, "source is of type"),
    "numbers for names": ({"class_names": np.arange(4)}, "class_names is of type int64"),
    "characters that do not exist": (
        {"source": np.full(5, 2**31 - 1, np.uint32).view("U1")},
        "wrong.npz cannot be read",
    ),
    "a split too many": ({"split": np.full(6, "test")}, "split is of shape"),
}


HAND_MADE = {
    "images from 0 to 1": (
        {"images": np.zeros((5, 6, 7, 3), np.float32)},
        r"images is of type float32, but must be of type uint8: .* np.round\(255 \* images\)",
    ),
    "a tensor as torchvision gives it": ({"images": torch.zeros(5, 3, 6, 7)}, "images is of type float32"),
    "images as a list": ({"images": [[[[0]]]]}, "images is of type int64, .* by images.astype"),
    "images of 16 bits": ({"images": np.zeros((5, 6, 7, 3), np.uint16)}, "images is of type uint16"),
    "channels first": (
        {"images": np.zeros((5, 3, 6, 7), np.uint8)},
        r"^images is of shape \(5, 3, 6, 7\), .*: its channels come first, .* images.transpose\(0, 2, 3, 1\)",
    ),
    "one image": ({"images": np.zeros((6, 7, 3), np.uint8)}, r"by images\[None\]"),
    "grey without an axis": ({"images": np.zeros((5, 6, 7), np.uint8)}, r"by images\[..., None\]"),
    "unequal images": ({"images": [[1], [1, 2]]}, "images is of type list and becomes no array"),
    "a tensor that autograd follows": (
        {"images": torch.zeros(5, requires_grad=True)},
        "images is of type Tensor and becomes no array",
    ),
    "labels with a point": (
        {"labels": np.zeros(5)},
        "labels is of type float64, .* another of whole",
    ),
    "labels one-hot": ({"labels": np.eye(4, dtype=int)}, r"labels is of shape \(4, 4\)"),
    "labels true or false": ({"labels": np.ones(5, bool)}, "labels is of type bool"),
    "a label that is missing": ({"labels": [0, 1, 2, 3, None]}, "labels is of type object"),
    "a label beyond int64": ({"labels": np.full(5, 2**64 - 1, np.uint64)}, "labels is between 18446744073"),
    "a count with a point": ({"num_classes": 4.0}, "num_classes is 4.0"),
    "one text for all splits": ({"split": "test"}, r"split is of shape \(\), but must be of shape \(5,\)"),
    "no sources": ({"source": None}, "source is of type object"),
    "one text for all names": ({"class_names": "abcd"}, r"class_names is of shape \(\)"),
    "names missing": ({"class_names": ("a", "b")}, r"class_names is of shape \(2,\), .* \(4,\)"),
    "no name": ({"name": ""}, "name is '', but must be the name"),
    "another shape than the catalogue's": (
        {"name": "lfw"},
        r"images is of shape \(5, 6, 7, 3\), but must be of shape \(N, \*\(32, 32, 3\)\)",
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), HAND_MADE.values(), ids=HAND_MADE)
def test_a_hand_made_sample_is_right_or_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        dataclasses.replace(sample(), **changes)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64, ">i8"])
def test_labels_of_any_whole_numbers_give_the_same_sample(kind):
    one = sample()
    other = dataclasses.replace(one, labels=one.labels.astype(kind), num_classes=np.int64(4))
    assert other.labels.dtype == np.int64
    assert other.digest() == one.digest()


def test_lists_and_tensors_that_change_no_value_give_the_same_sample():
    one = sample()
    other = Sample(
        name=one.name,
        images=torch.from_numpy(one.images),
        labels=one.labels.tolist(),
        class_names=list(one.class_names),
        num_classes=4,
        split=one.split.tolist(),
        source=one.source.astype(object),
    )
    assert other.digest() == one.digest()
    assert other.class_names == ("a", "b", "c", "d")
    for field in ("split", "source"):
        np.testing.assert_array_equal(getattr(other, field), getattr(one, field))


def test_images_that_torch_could_not_read_as_they_stand_are_copied():
    one = sample()
    mirrored = dataclasses.replace(one, images=one.images[:, :, ::-1])
    assert torch.equal(mirrored.tensor(), one.tensor().flip(3))
    fixed = one.images.copy()
    fixed.flags.writeable = False
    assert torch.equal(dataclasses.replace(one, images=fixed).tensor(), one.tensor())


def test_the_digest_is_the_one_that_committed_records_were_made_with():
    tiny = Sample(
        name="tiny",
        images=np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1),
        labels=np.array([1, 0]),
        class_names=(),
        num_classes=np.int64(2),
        split=["test", "test"],
        source=["one", "two"],
    )
    content = repr(((2, 3, 4, 1), 2)).encode() + bytes(range(24)) + struct.pack("<2q", 1, 0)
    assert tiny.digest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("changes", "sentence"), WRONG.values(), ids=WRONG)
def test_content_that_is_not_a_samples_is_named(tmp_path, changes, sentence):
    np.savez(tmp_path / "wrong.npz", **parts(**changes))
    with pytest.raises(InputError, match=sentence):
        read_sample(tmp_path / "wrong.npz")


def test_a_known_data_set_must_have_the_shape_of_the_catalogue(tmp_path):
    write_sample(sample(), tmp_path / "mnist.npz")
    with pytest.raises(InputError, match="images is of shape"):
        data.load("mnist", tmp_path)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match="wdlg data fetch svhn"):
        data.load("svhn", tmp_path)
    assert not data.is_present("svhn", tmp_path)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


NO_SAMPLE_FILES = {
    "an empty file": b"",
    "half a file": npz(**parts())[:-100],
    "text": b"no images",
    "one array": npy(np.arange(6)),
    "another archive": npz(pictures=np.arange(6)),
}


@pytest.mark.parametrize("content", NO_SAMPLE_FILES.values(), ids=NO_SAMPLE_FILES)
def test_a_file_that_is_no_sample_file_is_neither_present_nor_missing(tmp_path, content):
    (tmp_path / "svhn.npz").write_bytes(content)
    for function in (data.is_present, data.load):
        with pytest.raises(InputError, match="^sample file .*svhn.npz"):
            function("svhn", tmp_path)


def test_a_folder_or_a_pipe_in_a_sample_files_place_is_named_without_waiting_for_it(tmp_path):
    (tmp_path / "svhn.npz").mkdir()
    os.mkfifo(tmp_path / "lfw.npz")
    for name, reason in (("svhn", "it is a folder"), ("lfw", "it is no ordinary file")):
        with pytest.raises(InputError, match=rf"^sample file .*{name}.npz cannot be read \({reason}\)"):
            data.is_present(name, tmp_path)


def test_presence_is_told_without_reading_an_image(tmp_path, monkeypatch):
    write_sample(
        dataclasses.replace(sample(), images=np.zeros((5, 32, 32, 3), np.uint8)), tmp_path / "svhn.npz"
    )
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", None)
    assert data.is_present("svhn", tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_sample(sample(), tmp_path / "other.npz")

    def forbidden(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "open", forbidden)
    with pytest.raises(InputError, match=r"other.npz cannot be read \(Permission denied\)"):
        read_sample(tmp_path / "other.npz")


def test_a_data_folder_that_is_a_file_is_refused_and_one_that_cannot_be_has_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="^data_dir is .*file', but must be a folder"):
        data.data_dir(tmp_path / "file")
    assert not data.is_present("svhn", "a" * 300)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WDLG_DATA", "~/samples")
    assert data.data_dir() == tmp_path / "samples"


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="^dataset is 'cifar', but must be one of mnist,"):
        data.load("cifar")


def test_nothing_half_written_is_left_when_the_disk_is_full(tmp_path, monkeypatch):
    def full(*arguments, **arrays):
        arguments[0].write(b"half")
        raise OSError(28, "No space left on device")

    write_sample(sample(seed=1), tmp_path / "other.npz")
    before = (tmp_path / "other.npz").read_bytes()
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_sample(sample(), tmp_path / "other.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["other.npz"]
    assert (tmp_path / "other.npz").read_bytes() == before


@pytest.mark.parametrize("room", [0, 100, 1000, 1800])
def test_nothing_is_left_when_the_system_refuses_to_write_on(tmp_path, room):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(InputError, match="could not be written"):
            write_sample(sample(), tmp_path / "other.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_writing_is_interrupted(tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_sample(sample(), tmp_path / "other.npz")
    assert list(tmp_path.iterdir()) == []


def test_sources_that_are_objects_are_written_as_text_so_that_they_can_be_read(tmp_path):
    objects = dataclasses.replace(sample(), source=np.array([f"file {n}" for n in range(5)], dtype=object))
    write_sample(objects, tmp_path / "other.npz")
    assert read_sample(tmp_path / "other.npz").source.tolist() == objects.source.tolist()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="could not be written"):
        write_sample(sample(), tmp_path / "file" / "other.npz")


def test_the_folder_is_the_one_given_then_wdlg_data_then_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("WDLG_DATA", str(tmp_path / "variable"))
    assert data.data_dir(tmp_path / "given") == tmp_path / "given"
    assert data.data_dir() == tmp_path / "variable"
    monkeypatch.delenv("WDLG_DATA")
    assert data.data_dir().name == "wdlg"


def test_tensors_have_channels_first_and_values_from_0_to_1():
    one = sample()
    tensor = one.tensor([3, 1])
    assert tensor.shape == (2, 3, 6, 7)
    assert tensor[0, 2, 4, 5].item() == pytest.approx(one.images[3, 4, 5, 2] / 255)
    assert one.tensor().shape[0] == len(one)


def test_reading_does_not_depend_on_compression(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, **parts())
    (tmp_path / "other.npz").write_bytes(buffer.getvalue())
    assert read_sample(tmp_path / "other.npz").num_classes == 4
