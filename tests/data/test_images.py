"""A picture of one's own is read as it is, or refused with a reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

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
    with pytest.raises(InputError, match="has (16|32) bits a channel, but must have at most 8"):
        read_image(path, (5, 4, 1))


def png(width, height, *, bits, colour, rows=b""):
    """A PNG file as its specification has it; Pillow writes no more than 8 bits a channel."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_a_channel_is_refused_in_grey_and_colour_with_alpha_and_without(
    tmp_path, colour, channels
):
    path = tmp_path / "picture.png"
    path.write_bytes(png(4, 5, bits=16, colour=colour, rows=(b"\0" + b"\xff\xff" * channels * 4) * 5))
    for shape in ((5, 4, 1), (5, 4, 3)):
        with pytest.raises(InputError, match="has 16 bits a channel, but must have at most 8"):
            read_image(path, shape)


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_a_colour_tiff_of_16_bits_a_channel_is_refused(tmp_path, planes):
    path = tmp_path / "picture.tif"
    # tifffile comes with scikit-image; Pillow writes no more than 8 bits of a colour.
    shape = (3, 64, 64) if planes == "separate" else (64, 64, 3)
    tifffile.imwrite(path, np.zeros(shape, np.uint16), photometric="rgb", planarconfig=planes)
    with pytest.raises(InputError, match="has 16 bits a channel"):
        read_image(path, (64, 64, 3))


@pytest.mark.parametrize(
    ("bits", "row", "greys"), [(1, b"\xa0", [255, 0, 255]), (4, b"\xf0\x80", [255, 0, 136])]
)
def test_fewer_bits_are_spread_over_0_to_255(tmp_path, bits, row, greys):
    path = tmp_path / "picture.png"
    path.write_bytes(png(3, 1, bits=bits, colour=0, rows=b"\0" + row))
    assert read_image(path, (1, 3, 1)).flatten().tolist() == greys


def test_the_colours_of_a_palette_are_read_not_its_numbers(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([1, 0])
    for name in ("picture.png", "picture.gif", "picture.bmp"):
        picture.save(tmp_path / name)
        assert read_image(tmp_path / name, (1, 2, 3)).tolist() == [[[200, 100, 50], [10, 20, 30]]]


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "picture.jpg"), ("CMYK", "picture.tif"), ("LAB", "picture.tif")]
)
def test_colours_that_are_not_rgb_are_refused(tmp_path, mode, name):
    Image.new(mode, (4, 5)).save(tmp_path / name)
    with pytest.raises(InputError, match=f"has pixels of the kind {mode}, but must be grey or RGB"):
        read_image(tmp_path / name, (5, 4, 3))


TURNED = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}
"""What a viewer shows for each orientation that EXIF knows."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("name", "settings"), [("a.png", {}), ("a.tif", {}), ("a.webp", {"lossless": True})])
def test_a_picture_is_turned_as_its_metadata_says_and_its_size_judged_after(
    tmp_path, orientation, name, settings
):
    stored = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **settings)
    shown = TURNED[orientation](stored)
    np.testing.assert_array_equal(read_image(tmp_path / name, shown.shape), shown)
    height, width = shown.shape[:2]
    with pytest.raises(InputError, match=f"is {width} x {height} pixels, but the network takes {height} x"):
        read_image(tmp_path / name, (width, height, 3))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "MPO"])
def test_of_several_frames_none_is_taken_silently(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "one", kind if kind != "MPO" else "JPEG")
    assert read_image(tmp_path / "one", (8, 8, 3)).shape == (8, 8, 3)
    frames[0].save(tmp_path / "three", kind, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="has 3 frames or pages, but must have one"):
        read_image(tmp_path / "three", (8, 8, 3))


def test_an_enormous_picture_is_refused_by_its_size_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    for side, said in ((10_000, "is 10000 x 10000 pixels"), (30_000, "more pixels than Pillow opens")):
        path.write_bytes(png(side, side, bits=8, colour=0))
        with pytest.raises(InputError, match=f"{said}.*the network takes 8 x 8"):
            read_image(path, (8, 8, 1))


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


@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]), st.data())
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


def test_a_missing_file_a_folder_and_a_pipe_are_refused_with_the_reason(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (
        ("nothing.png", "No such file"),
        (".", "it is a folder"),
        ("pipe.png", "no ordinary"),
    ):
        with pytest.raises(InputError, match=f"cannot be opened .*{reason}"):
            read_image(tmp_path / name, (8, 8, 1))


def test_a_format_whose_depth_is_not_known_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.ppm")
    with pytest.raises(InputError, match="is no picture that can be read, but must be one of PNG, JPEG"):
        read_image(tmp_path / "picture.ppm", (8, 8, 3))
