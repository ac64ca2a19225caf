"""A picture of one's own is read as it is, or refused with a reason."""

import numpy as np
import pytest
from PIL import Image

from wdlg.data import read_image
from wdlg.errors import InputError


def saved(tmp_path, array, name="picture.png"):
    path = tmp_path / name
    Image.fromarray(array).save(path)
    return path


def test_colours_are_read_as_they_are(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(saved(tmp_path, array), (5, 4, 3)), array)


def test_grey_becomes_three_equal_channels_and_colour_becomes_luminance(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (5, 4), dtype=np.uint8)
    path = saved(tmp_path, grey)
    np.testing.assert_array_equal(read_image(path, (5, 4, 1))[..., 0], grey)
    np.testing.assert_array_equal(read_image(path, (5, 4, 3)), np.stack([grey] * 3, axis=-1))
    red = np.zeros((5, 4, 3), np.uint8)
    red[..., 0] = 255
    # ITU-R 601: 0.299 of red.
    assert np.unique(read_image(saved(tmp_path, red), (5, 4, 1))).tolist() == [76]


def test_another_size_is_refused_with_both(tmp_path):
    path = saved(tmp_path, np.zeros((5, 4), np.uint8))
    with pytest.raises(InputError, match="4 x 5 pixels, but the network takes 32 x 28"):
        read_image(path, (28, 32, 1))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_a_file_that_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no picture"):
        read_image(path, (8, 8, 1))


def test_a_truncated_picture_is_refused(tmp_path):
    path = saved(tmp_path, np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="is no picture"):
        read_image(path, (64, 64, 1))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(InputError, match="cannot be opened"):
            read_image(path, (8, 8, 1))
