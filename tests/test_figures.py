"""Figures draw what they are given, in one visual language, and are saved whole or not at all."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from PIL import Image
from small_study import small_study

from wdlg import data, figures
from wdlg.attacks import DLG, IDLG, WDLG, Optimised
from wdlg.errors import InputError
from wdlg.losses import Wasserstein
from wdlg.study import Design, draw, run_paired
from wdlg.study.mechanism import kept_along, plans_along
from wdlg.study.records import PICTURE_ITERATIONS, values_at
from wdlg.study.runner import compute
from wdlg.study.statistics import quartiles, share, success_curve


@pytest.fixture(scope="module")
def outcome(digits):
    attacks = [replace(method, evaluations=60) for method in (DLG, IDLG, WDLG)]
    return run_paired(draw(digits, Design(networks=4, images=1)), attacks, snapshot_iterations=(0, 3))


def curves(axes):
    """The curves of some axes by their label."""
    return {line.get_label(): line for line in axes.lines}


def test_a_notebook_is_given_an_opaque_png(outcome):
    content = figures.unfolding(outcome, "iDLG")._repr_png_()
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    assert picture.convert("RGBA").getextrema()[3] == (255, 255)


def test_one_attack_is_drawn_with_its_start_or_without_one(outcome):
    *pictures, curve = figures.single_attack(outcome, "iDLG", start=outcome.truth).axes
    assert [axes.get_title() for axes in pictures] == [
        "private image",
        "start: random noise",
        "recovered by iDLG",
    ]
    record = outcome.records.query("method == 'iDLG'").iloc[0]
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), record["trace_loss"])
    assert curve.lines[0].get_marker() == "None"
    # An attack of one evaluation, by a method without a look of its own.
    one = {"method": "mine", "trace_evaluation": [np.array([0])], "trace_loss": [np.array([0.5])]}
    mine = replace(outcome, records=pd.DataFrame(one), images={"mine": outcome.truth})
    *pictures, curve = figures.single_attack(mine, "mine", start=None).axes
    assert [axes.get_title() for axes in pictures] == ["private image", "recovered by mine"]
    assert curve.lines[0].get_marker() != "None"


def test_every_method_keeps_its_colour_and_line_style(outcome):
    figure = figures.convergence({"digits": outcome.records})
    for method, line in curves(figure.axes[0]).items():
        assert to_rgba(line.get_color()) == to_rgba(figures.LOOKS[method].color)
        assert line.get_linestyle() == figures.LOOKS[method].style
    assert len({look.marker for look in figures.LOOKS.values()}) == len(figures.LOOKS)


def test_convergence_draws_the_median_of_all_runs(outcome):
    figure = figures.convergence({"digits": outcome.records})
    for row, quantity in enumerate(("loss", "mse")):
        for method, line in curves(figure.axes[row]).items():
            runs = outcome.records[outcome.records["method"] == method]
            places = line.get_xdata()
            middle = quartiles(values_at(runs, quantity, places, against="iteration"))[1]
            np.testing.assert_array_equal(line.get_ydata(), middle)


def test_the_papers_form_moves_every_curve_to_the_same_floor(outcome):
    figure = figures.convergence({"digits": outcome.records}, form="paper")
    for axes in figure.axes:
        for line in axes.lines:
            assert np.nanmin(line.get_ydata()) == pytest.approx(0, abs=1e-12)


def test_success_curves_draw_shares_of_all_runs_and_the_published_points(outcome):
    published = {"digits": {"iDLG": {1e-2: 0.84}}}
    figure = figures.success_curves({"digits": outcome.records}, published)
    lines = curves(figure.axes[0])
    runs = outcome.records.query("method == 'iDLG'")
    line = lines["iDLG, here"]
    expected = success_curve(runs["mse"], line.get_xdata(), runs["network"])[0]
    np.testing.assert_array_equal(line.get_ydata(), expected)
    assert lines["iDLG, published"].get_ydata() == [0.84]


def test_images_are_clamped_and_what_is_no_number_is_black():
    image = np.array([[[2.0, -1.0], [np.nan, 0.5]]])
    figure = figures.image_grid([[image]], row_titles=["row"], column_titles=["column"])
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, [[1.0, 0.0], [0.0, 0.5]])


def test_the_one_stem_that_points_down_is_the_label():
    axes = figures.bias_gradient(np.array([0.1, 0.2, -0.9, 0.6]), 2).axes[0]
    lines = curves(axes)
    assert lines["negative: $p_y - 1$, the label"].get_xdata().tolist() == [2]
    assert "true label 2" in axes.get_xlabel()


def test_axes_are_labelled(outcome):
    for figure in (
        figures.mse_against_loss({"digits": outcome.records}),
        figures.learning_rates(outcome.records.assign(learning_rate=0.1), quantity="mse"),
        figures.loss_lines(np.linspace(0, 1, 3), {"squared": np.ones((1, 3))}, titles=["line"]),
        figures.plan_maps({"plan": np.eye(3) / 3}),
    ):
        first = figure.axes[0]
        assert first.get_xlabel()
        assert first.get_ylabel()


def test_a_figure_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = figures.method_diagram()
    target = tmp_path / "method.png"
    figures.save(figure, target)
    before = target.read_bytes()

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(InputError, match="No space left on device"):
        figures.save(figure, target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_without_the_systems_words_has_its_own(tmp_path, monkeypatch):
    figure = figures.method_diagram()

    def fail(*arguments, **settings):
        raise OSError("image is too large to encode")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(InputError, match=r"writing it failed \(image is too large to encode\)\.$"):
        figures.save(figure, tmp_path / "method.png")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="must be a place one can write to"):
        figures.save(figures.method_diagram(), tmp_path / "no" / "method.png")


@pytest.fixture(scope="module")
def stored():
    """Records of a small study, with a second data set's name for half of them."""
    cells = [cell for cell in small_study().part("main") if cell.design.first_network < 2]
    tables = []
    for cell in cells:
        table = compute(cell, data.load("digits"))
        for name, value in cell.columns().items():
            table[name] = value
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def test_convergence_begins_at_the_starts_and_holds_after_the_ends(stored):
    axes = figures.convergence({"digits": stored}, against="evaluation").axes[1]
    for method, rows in stored.groupby("method"):
        line = curves(axes)[method]
        ends = [trace[-1] for trace in rows["trace_mse"]]
        assert line.get_ydata()[-1] == pytest.approx(np.quantile(ends, 0.5, method="lower"))
        starts = [trace[0] for trace in rows["trace_mse"]]
        assert line.get_ydata()[0] == pytest.approx(np.quantile(starts, 0.5, method="lower"))
        assert to_rgba(line.get_color()) == to_rgba(figures.LOOKS[method].color)


def test_each_curve_of_a_learning_rate_is_of_its_own_runs(stored):
    both = pd.concat([stored.assign(learning_rate=rate) for rate in (0.1, 1.0)], ignore_index=True)
    faster = both["learning_rate"] == 1.0
    both.loc[faster, "trace_mse"] = both.loc[faster, "trace_mse"].map(lambda trace: trace / 2)
    for axes in figures.learning_rates(both, quantity="mse").axes:
        lines = curves(axes)
        np.testing.assert_allclose(lines["1"].get_ydata(), lines["0.1"].get_ydata() / 2)


def test_recovered_images_are_shown_beside_the_private_one(stored, digits):
    first = stored[(stored["network"] == 0) & (stored["case"] == 0)]
    private = digits.tensor([int(first["image"].iloc[0])])[0].numpy()
    figure = figures.recovered(first, {"digits": private})
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), private[0])
    for axes, (_, record) in zip(figure.axes[1:], first.iterrows(), strict=True):
        image = axes.images[0].get_array()
        assert axes.get_title() == record["method"]
        # Clamped and rounded to 256 steps: hardly farther from the private image than what was recovered.
        assert np.mean((image - private[0]) ** 2) <= record["mse"] + 1 / 255
    steps = figures.on_the_way(first, None)
    assert len(steps.axes) == len(first) * (len(PICTURE_ITERATIONS) + 1)
    last = steps.axes[len(PICTURE_ITERATIONS) - 1].images[0].get_array()
    np.testing.assert_array_equal(last, figure.axes[1].images[0].get_array())


def test_success_of_each_loss_is_drawn_at_its_share(stored):
    table = stored.assign(mse=np.where(stored["method"] == "iDLG", 1e-5, 1.0), exploded=False)
    axes = figures.success_of_each(table, {"digits": "Digits"}, ["iDLG", "WDLG"]).axes[0]
    dots = [line for line in axes.lines if line.get_label() == "MSE < 0.01"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [1.0, 0.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["iDLG", "WDLG"]


def test_missed_labels_are_drawn_at_their_share_with_the_interval_turned_round():
    shares = {"MNIST": share(90, 100), "LFW": share(100, 100)}
    rows = [(name, condition, one) for condition in ("a", "b") for name, one in shares.items()]
    axes = figures.missed_labels(pd.DataFrame(rows, columns=["dataset", "condition", "share"])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["MNIST", "LFW"]
    first, second = axes.containers
    assert list(first.lines[0].get_xdata()) == pytest.approx([0.1, 0.0])
    [bars] = first.lines[2]
    ends = [segment[:, 0] for segment in bars.get_segments()]
    for drawn, one in zip(ends, shares.values(), strict=True):
        assert list(drawn) == pytest.approx([1 - one.high, 1 - one.low])
    assert (second.lines[0].get_ydata() > first.lines[0].get_ydata()).all()
    assert not figures.missed_labels(pd.DataFrame()).axes


def test_success_by_rate_has_a_panel_for_each_optimiser(stored):
    table = pd.concat(
        [
            stored.assign(optimizer=name, learning_rate=rate, mse=1e-5 if rate < 1 else 1.0)
            for name in ("LBFGS", "Adam")
            for rate in (0.1, 1.0)
        ]
    )
    figure = figures.success_by_rate(table)
    assert [axes.get_title() for axes in figure.axes] == ["LBFGS", "Adam"]
    for container in figure.axes[0].containers:
        assert list(container.lines[0].get_xdata()) == [0.1, 1.0]
        assert list(container.lines[0].get_ydata()) == [1.0, 0.0]


def test_kept_mass_is_drawn_case_by_case_with_the_median(digits):
    cases = draw(digits, Design(networks=3, images=1))
    losses = {"free": Wasserstein(eps=0), "tied": Wasserstein(penalty=float("inf"))}
    attacks = [Optimised(name, "bias_sign", loss, evaluations=40) for name, loss in losses.items()]
    table = kept_along(plans_along(cases, attacks, iterations=(0, 1)))
    assert (table[table["method"] == "tied"]["kept"] == 1).all()
    assert table["kept"].between(0, 1 + 1e-6).all()
    free = figures.kept_mass(table).axes[0]
    assert len(free.lines) == 3 + 1
    expected = table[table["method"] == "free"].groupby("iteration")["kept"].median()
    assert list(free.lines[-1].get_ydata()) == pytest.approx(list(expected))
