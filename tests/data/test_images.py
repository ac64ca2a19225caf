"""A picture of one's own is read as it is, or refused with a reason."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_a_channel_are_refused_rather_than_cut_off(tmp_path, kind):
    path = saved(tmp_path, np.full((5, 4), 300, kind), "picture.tif")
    with pytest.raises(InputError, match="must have 8 bits a channel"):
        read_image(path, (5, 4, 1))


def with_alpha(alpha):
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    array[..., 3] = alpha
    return array


def test_an_alpha_channel_that_hides_nothing_is_left_out(tmp_path):
    array = with_alpha(255)
    np.testing.assert_array_equal(read_image(saved(tmp_path, array), (5, 4, 3)), array[..., :3])


def test_transparent_pixels_are_refused_since_their_colour_is_not_what_one_sees(tmp_path):
    with pytest.raises(InputError, match="alpha of 7, but all must be opaque"):
        read_image(saved(tmp_path, with_alpha(7)), (5, 4, 3))


def test_a_transparent_palette_is_refused_without_a_warning(tmp_path):
    path = tmp_path / "picture.png"
    palette = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(5, 4)).convert("P")
    palette.save(path, transparency=bytes([0, 10, 255]))
    with pytest.raises(InputError, match="alpha of 0"):
        read_image(path, (5, 4, 3))


def encoded(kind):
    buffer = io.BytesIO()
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP"]), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_damaged_picture_is_read_or_refused_in_a_sentence(tmp_path, kind, draw):
    content = bytearray(encoded(kind))
    start = draw.draw(st.integers(0, len(content) - 1))
    damage = draw.draw(st.binary(min_size=1, max_size=8))
    content[start : start + len(damage)] = damage
    path = tmp_path / "picture"
    path.write_bytes(content)
    try:
        assert read_image(path, (8, 8, 3)).shape == (8, 8, 3)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(InputError, match="cannot be opened"):
            read_image(path, (8, 8, 1))
