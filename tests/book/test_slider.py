"""Sliders: one piece of HTML that holds every frame exactly and asks nothing of the network."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from wdlg.book.pdf import find_browser
from wdlg.figures import Frame, Slider, plan_slider, recovery_slider
from wdlg.study import Outcome

PIXELS = st.sampled_from([1, 3]).flatmap(lambda channels: st_numpy.arrays(np.uint8, (channels, 4, 5)))


class Parts(HTMLParser):
    """The elements of a page, and the data of its slider."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.frames, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("type") == "application/json"

    def handle_data(self, text):
        if self.inside:
            self.frames = json.loads(text)
            self.inside = False


def decoded(content):
    """A PNG in base64 as an array (C, H, W)."""
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(content))))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@given(PIXELS, st.text(max_size=20))
def test_every_frame_is_held_exactly_whatever_its_texts(pixels, text):
    frames = [Frame(text, [pixels / 255], [text]), Frame("</script><b>", [1 - pixels / 255], ["</script>"])]
    page = Parts(Slider(frames, columns=["<i>"], variable=text)._repr_html_())
    np.testing.assert_array_equal(decoded(page.frames[0]["images"][0]), pixels)
    np.testing.assert_array_equal(decoded(page.frames[1]["images"][0]), 255 - pixels)
    assert [frame["name"] for frame in page.frames] == [text, "</script><b>"]
    assert {tag for tag, _ in page.elements}.isdisjoint({"b", "i"})


def test_a_slider_is_self_contained_and_has_words_for_those_who_cannot_see_it():
    frames = [Frame(f"iteration {n}", [np.zeros((1, 2, 2))] * 2, ["MSE 1", ""]) for n in range(3)]
    text = Slider(frames, columns=["WDLG", "private image"], variable="Iteration")._repr_html_()
    page = Parts(text)
    assert re.findall(r"https?://|\bimport\b|\bfetch\b", text) == []
    assert page.frames[2]["alts"] == ["WDLG, iteration 2, MSE 1", "private image, iteration 2"]
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert [image["alt"] for image in images] == page.frames[0]["alts"]
    (slider,) = [attributes for tag, attributes in page.elements if tag == "input"]
    assert (slider["type"], slider["min"], slider["max"]) == ("range", "0", "2")


def test_what_a_slider_says_aloud_is_the_place_and_each_picture_s_note():
    frames = [Frame("iteration 5", [np.zeros((1, 2, 2))] * 2, ["MSE 0.004, recovered", ""])]
    [frame] = Parts(Slider(frames, columns=["iDLG", "private image"], variable="I")._repr_html_()).frames
    assert frame["said"] == ["iDLG MSE 0.004, recovered"]


@pytest.mark.xdist_group("browser")
@pytest.mark.skipif(find_browser() is None, reason="no Chromium")
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_slider_plays_once_and_for_readers_without_motion_only_when_asked(browser, motion, tmp_path):
    frames = [Frame(f"iteration {n}", [np.full((1, 2, 2), n / 4)], [f"MSE {n}"]) for n in range(5)]
    slider = Slider(frames, columns=["iDLG"], variable="Iteration", start=4, plays=True)
    (tmp_path / "page.html").write_text(f"<html><body>{slider._repr_html_()}</body></html>")
    page = browser.new_page(reduced_motion=motion)
    page.goto((tmp_path / "page.html").as_uri())
    button, control = page.locator("button"), page.locator("input")
    last = "document.querySelector('input').value === '4'"
    if motion == "reduce":
        page.wait_for_timeout(400)
        assert (button.inner_text(), control.input_value()) == ("Play", "4")
        button.click()
    assert button.inner_text() == "Pause"
    page.wait_for_function("document.querySelector('input').value === '1'")
    button.click()
    place = control.input_value()
    page.wait_for_timeout(400)
    assert (button.inner_text(), control.input_value()) == ("Play", place)
    button.click()
    page.wait_for_function(last)
    page.wait_for_function("document.querySelector('button').textContent === 'Play'")
    assert control.get_attribute("aria-valuetext") == "iteration 4; iDLG MSE 4"
    page.close()


def test_where_there_is_no_html_the_first_and_the_last_frame_are_shown():
    frames = [Frame(f"iteration {n}", [np.full((1, 2, 2), n / 9)], [""]) for n in range(10)]
    figure = Slider(frames, columns=["image"], variable="Iteration").static()
    shown = [axes.images[0].get_array()[0, 0] for axes in figure.axes]
    assert (shown[0], shown[-1]) == (0, 1)
    assert shown == sorted(shown)
    assert Image.open(io.BytesIO(Slider(frames, columns=["i"], variable="I")._repr_png_())).format == "PNG"


def test_plans_are_dark_where_all_mass_of_a_row_goes_and_count_what_stays():
    stays, moves = np.eye(4) / 4, np.roll(np.eye(4), 1, axis=1) / 4
    frame = plan_slider({"here": {"stays": stays, "moves": moves}}, variable="Plan").frames[0]
    assert frame.notes == ["100% in place", "0% in place"]
    for image, plan in zip(frame.images, (stays, moves), strict=True):
        np.testing.assert_array_equal(image[0] == image[0].min(), plan > 0)


def test_a_recovery_has_each_method_and_the_private_image():
    truth = np.full((2, 1, 3, 3), 0.5)
    snapshots = {name: np.stack([truth + 0.2, truth]) for name in ("DLG", "WDLG")}
    outcome = Outcome(None, {}, snapshots, (0, 5), truth)
    slider = recovery_slider(outcome, case=1)
    assert slider.columns == ["DLG", "WDLG", "private image"]
    assert [frame.name for frame in slider.frames] == ["iteration 0", "iteration 5"]
    assert slider.frames[0].notes == ["MSE 0.04", "MSE 0.04", ""]
    assert slider.frames[1].notes == ["MSE 0, recovered", "MSE 0, recovered", ""]
    assert (slider.start, slider.plays) == (0, False)
    assert recovery_slider(outcome, case=1, plays=True).start == 1  # without scripts: the recovery
