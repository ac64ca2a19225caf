"""The attack in the page: what the script computes is what the library computes, and everyone can use it."""

import base64
import re
from contextlib import suppress

import numpy as np
import psutil
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from torch.nn.functional import cross_entropy, interpolate

from wdlg import attack, data
from wdlg.attacks import Observation
from wdlg.attacks.exact import Exact
from wdlg.book.pdf import LEFT_OUT, find_browser
from wdlg.errors import InputError
from wdlg.figures import PageAttack
from wdlg.figures.page_attack import LEVELS
from wdlg.limits import limits
from wdlg.networks import LeNet
from wdlg.updates.gradient import from_tensors

pytestmark = pytest.mark.xdist_group("browser")
needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium")

NETWORK = LeNet((1, 28, 28), 10)
PARAMETERS = NETWORK.initial_parameters(generator=torch.Generator().manual_seed(0))
WAIT = 60_000
"""Milliseconds for a recovery on a busy machine; alone it takes less than one second."""

RECOVERED = "() => window.wdlgAttack.last && !document.querySelector('.wdlg-attack').ariaBusy"
LAST = """() => {
    const {picture, label, read, level, gradient, closed, fitted, constant, seconds} = window.wdlgAttack.last;
    return {label, read, level, constant, seconds, picture: [...picture], gradient: [...gradient],
        closed: [...closed], fitted: [...fitted]};
}"""


@pytest.fixture(scope="module")
def widget():
    digits = data.load("digits")
    pictures = interpolate(digits.tensor([0, 1]), size=(28, 28), mode="bicubic").clamp(0, 1)
    weights = [tensor[0].numpy() for tensor in PARAMETERS.tensors]
    labels = digits.labels[[0, 1]]
    constants = [
        limits(NETWORK, PARAMETERS, picture, label).constant
        for picture, label in zip(pictures, labels, strict=True)
    ]
    return PageAttack(
        weights,
        strides=(2, 2, 1),
        pictures=pictures.numpy(),
        labels=labels,
        constants=constants,
    )


@pytest.fixture(scope="module")
def address(widget, tmp_path_factory):
    """A page with nothing but the attack, as a file."""
    path = tmp_path_factory.mktemp("attack") / "page.html"
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>An attack</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
        f"<body><main><h1>An attack</h1>{widget._repr_html_()}</main></body></html>",
        encoding="utf-8",
    )
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    """That page, on a phone's screen, without a network."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, offline=True, has_touch=True)
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(address)
    yield page
    assert page.asked == [address]
    assert page.complaints == []
    context.close()


def part(page, name):
    return page.locator(f'[data-part="{name}"]')


def recovery(page, place=0):
    """What the page has recovered, the slider at a place."""
    part(page, "noise").evaluate(
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }", place
    )
    part(page, "recover").click()
    page.wait_for_function(RECOVERED, timeout=WAIT)
    found = page.evaluate(LAST)
    for name in ("picture", "gradient", "closed", "fitted"):
        found[name] = np.array(found[name])
    return found


def as_tensors(entries):
    """A gradient as one list as a tensor for each weight and bias."""
    sizes = [int(np.prod(shape)) for shape in NETWORK.parameter_shapes]
    parts = torch.tensor(entries, dtype=torch.float32).split(sizes)
    return [part.view(shape) for part, shape in zip(parts, NETWORK.parameter_shapes, strict=True)]


def by_library(entries, refine=0):
    """The picture that the library recovers from the same gradient."""
    seen = Observation(NETWORK, PARAMETERS, from_tensors(as_tensors(entries), rank_one=False))
    return attack(seen, Exact(label_rule="bias_min", refine=refine)).images.double().flatten().numpy()


def mse(one, other):
    return float(np.square(one - other).mean())


@needs_browser
def test_the_gradient_is_that_of_torch_rounded_to_single_precision(page):
    found = recovery(page)
    weights = [tensor[0].double().requires_grad_() for tensor in PARAMETERS.tensors]
    image = torch.from_numpy(found["picture"]).view(1, 1, 28, 28)
    loss = cross_entropy(NETWORK.scores(weights, image), torch.tensor([found["label"]]))
    exact = torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]).numpy()
    assert np.array_equal(found["gradient"], found["gradient"].astype(np.float32))
    # Half a unit in the last place of float32 is 6e-8 of an entry; sums in another order add less.
    np.testing.assert_allclose(found["gradient"], exact, rtol=7e-8, atol=1e-13 * np.abs(exact).max())


@needs_browser
@pytest.mark.parametrize("level", [0, 1e-3, 0.03])
def test_the_closed_form_is_that_of_the_library_with_and_without_noise(page, level):
    found = recovery(page, LEVELS.index(level))
    assert found["level"] == level
    assert found["read"] == found["label"]
    assert mse(found["closed"], by_library(found["gradient"])) < 1e-10
    assert mse(found["closed"], found["picture"]) == pytest.approx(
        mse(by_library(found["gradient"]), found["picture"]), rel=1e-3, abs=1e-10
    )


@needs_browser
@pytest.mark.parametrize("level", [0.01, 0.05])
def test_the_fit_is_that_of_the_library_and_reaches_the_bound(page, level):
    found = recovery(page, LEVELS.index(level))
    error, again = (
        mse(one, found["picture"]) for one in (found["fitted"], by_library(found["gradient"], refine=4))
    )
    # Its linear systems are solved to 1e-3 only.
    assert error == pytest.approx(again, rel=0.1)
    image = torch.tensor(found["picture"], dtype=torch.float32).view(1, 28, 28)
    bound = limits(NETWORK, PARAMETERS, image, found["label"])
    # 784 draws of noise: their mean square is within 20 % of what is expected.
    assert 0.8 < error / bound.bound(level) < 1.25
    assert found["constant"] == pytest.approx(bound.constant, rel=1e-3)
    assert mse(found["closed"], found["picture"]) > 4 * error


@needs_browser
def test_noise_is_reported_and_drowns_the_picture(page):
    errors = []
    for level in (0, 1e-3, 0.3):
        found = recovery(page, LEVELS.index(level))
        errors.append([mse(found[name], found["picture"]) for name in ("closed", "fitted")])
        status = part(page, "status").inner_text()
        assert (f"Noise: {level:g} of" if level else "Noise: none") in status
        drowned = errors[-1][1] >= 0.01
        assert ("not recovered" in status) == drowned
    assert (np.diff(errors, axis=0) > 0).all()
    assert errors[0][0] < 1e-9
    assert errors[-1][1] > 0.1
    assert "no unbiased attack" in part(page, "bound").inner_text()


def processor_seconds():
    """Of all pages of the browsers that this process started; not waiting for other programs."""
    used = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "--type=renderer" in process.cmdline():
                used += sum(process.cpu_times()[:2])
    return used


@needs_browser
def test_gradient_closed_form_and_fit_take_less_than_two_seconds(page):
    recover = """async ([data, level]) => {
        const {makeNetwork, gradientOf, withNoise, labelOf, closedForm, fit} = window.wdlgAttack;
        const network = makeNetwork(data.network), {pixels, label} = data.examples[0];
        const picture = Float64Array.from(atob(pixels), letter => letter.charCodeAt(0) / 255);
        const gradient = withNoise(gradientOf(network, picture, label), level);
        await fit(network, gradient, labelOf(network, gradient), await closedForm(network, gradient));
    }"""
    content = page.evaluate("JSON.parse(document.querySelector('[type=\"application/json\"]').textContent)")
    before = processor_seconds()
    page.evaluate(recover, [content, 0.03])
    assert 0.01 < processor_seconds() - before < 2


@needs_browser
def test_the_keyboard_chooses_recovers_and_adds_noise(page):
    seen = []
    for _ in range(7):
        page.keyboard.press("Tab")
        focused = "document.activeElement.dataset"
        seen.append(page.evaluate(f"{focused}.part ?? {focused}.example"))
        if seen[-1] == "1":
            page.keyboard.press("Enter")
    assert seen[:6] == ["0", "1", "none", "label", "recover", "noise"]
    assert page.locator('[data-example="1"]').get_attribute("aria-pressed") == "true"
    part(page, "recover").press("Enter")
    page.wait_for_function(RECOVERED, timeout=WAIT)
    first = page.evaluate(LAST)
    part(page, "noise").press("End")
    assert part(page, "level").inner_text() == part(page, "noise").get_attribute("aria-valuetext")
    page.wait_for_function(RECOVERED, timeout=WAIT)
    second = page.evaluate(LAST)
    assert first["picture"] == second["picture"]
    assert (first["level"], second["level"]) == (0, LEVELS[-1])
    digits = data.load("digits")
    assert first["read"] == first["label"] == digits.labels[1]
    status = part(page, "status")
    assert status.get_attribute("role") == "status"
    assert "0.3 of the gradient's length" in status.inner_text()


@needs_browser
def test_what_is_drawn_comes_back(page):
    page.locator('[data-example="none"]').click()
    frame = part(page, "sheet").bounding_box()
    across = [(0.3, 0.2), (0.7, 0.2), (0.4, 0.8)]
    points = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in across]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    page.touchscreen.tap(frame["x"] + 0.8 * frame["width"], frame["y"] + 0.8 * frame["height"])
    part(page, "label").select_option("7")
    found = recovery(page)
    drawn = found["picture"].reshape(28, 28)
    assert drawn[5, 14] > 0.5
    assert drawn[22, 22] > 0.5
    assert drawn[14, 2] == 0
    assert found["read"] == 7
    assert mse(found["closed"], found["picture"]) < 1e-9
    # Its bound is estimated, from two random vectors.
    image = torch.tensor(drawn, dtype=torch.float32)[None]
    bound = limits(NETWORK, PARAMETERS, image, found["label"])
    assert found["constant"] == pytest.approx(bound.constant, rel=0.2)


@needs_browser
def test_an_empty_sheet_comes_back_empty(page):
    page.locator('[data-example="none"]').click()
    found = recovery(page)
    assert not found["picture"].any()
    assert mse(found["closed"], found["picture"]) < 1e-9
    assert mse(found["fitted"], found["picture"]) < 1e-9


@needs_browser
def test_of_two_changes_the_last_is_recovered(page):
    part(page, "recover").click()
    part(page, "noise").press("End")
    page.locator('[data-example="1"]').click()
    page.wait_for_function(RECOVERED, timeout=WAIT)
    assert page.evaluate(LAST)["level"] == LEVELS[-1]
    assert page.evaluate(LAST)["label"] == data.load("digits").labels[1]


@needs_browser
def test_it_has_no_barrier_and_fits_a_phone(page):
    recovery(page)
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    assert [entry["id"] for entry in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    labels = page.locator("canvas").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert len(set(labels)) == 4
    assert [("MSE" in label) for label in labels] == [False, False, True, True]


@needs_browser
def test_without_scripts_and_on_paper_a_sentence_stands_in_its_place(browser, address, page):
    page.emulate_media(media="print")
    assert not part(page, "live").is_visible()
    assert page.locator(".wdlg-attack-note").is_visible()
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(address)
    assert not part(plain, "live").is_visible()
    assert plain.locator(".wdlg-attack-note").is_visible()
    context.close()


def test_in_the_pdf_the_sentence_stands_alone(widget):
    soup = BeautifulSoup(widget._repr_html_(), "html.parser")
    for element in soup.select(LEFT_OUT):
        element.decompose()
    assert soup.select("canvas, button, select, input, script") == []
    assert "figures of this chapter" in soup.select_one(".wdlg-attack").text


def test_it_is_self_contained_and_holds_weights_and_pictures_exactly(widget):
    text = widget._repr_html_()
    assert re.findall(r"https?://|\bimport\b|\bfetch\b|XMLHttpRequest", text) == []
    assert len(text) < 150_000
    content = widget.data()
    sent = np.frombuffer(base64.b64decode(content["network"]["weights"]), "<f4")
    np.testing.assert_array_equal(sent, torch.cat([one[0].flatten() for one in PARAMETERS.tensors]).numpy())
    grey = np.frombuffer(base64.b64decode(content["examples"][0]["pixels"]), np.uint8)
    np.testing.assert_allclose(grey / 255, widget.pictures[0], atol=0.5 / 255 + 1e-9)
    soup = BeautifulSoup(text, "html.parser")
    assert soup.select_one("input")["max"] == str(len(LEVELS) - 1)
    identities = {element["id"] for element in soup.select("[id]")}
    assert {label["for"] for label in soup.select("label[for]")} <= identities


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"strides": (2, 2)}, "weights have the shapes"),
        ({"strides": (2, 2, 2)}, "weights have the shapes"),
        ({"pictures": np.zeros((2, 8, 8))}, "pictures have 64 pixels"),
    ],
)
def test_another_network_or_picture_is_refused(widget, change, complaint):
    given = {"strides": widget.strides, "pictures": widget.pictures, "labels": widget.labels} | change
    with pytest.raises(InputError, match=complaint):
        PageAttack(widget.weights, **given)
