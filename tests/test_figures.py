"""Figures draw what they are given, in one visual language, and are saved whole or not at all."""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgba
from PIL import Image
from small_study import small_study

from wdlg import data, figures
from wdlg.attacks import DLG, IDLG, WDLG, Optimised
from wdlg.errors import InputError
from wdlg.figures.look import ORDERED, WIDTH
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


def test_a_figure_tells_a_notebook_what_it_drew_beside_the_picture(outcome):
    format = DisplayFormatter().format
    figure = figures.success_curves({"digits": outcome.records}, {})
    data, beside = format(figure, include=["image/png"])
    assert beside["image/png"]["told"] == figure.told
    assert set(data) == {"image/png"}
    good = (outcome.records.query("method == 'iDLG'")["mse"] < 0.01).mean()
    assert f"iDLG {100 * good:.0f} %" in figure.told
    silent, beside = format(figures.method_diagram(), include=["image/png"])
    assert set(silent) == {"image/png"}
    assert beside.get("image/png", {}) == {}


def test_every_figure_of_many_panels_is_no_wider_than_a_phone_can_show(outcome, stored):
    tables = {f"data set {number}": outcome.records for number in range(5)}
    rates = pd.concat([stored.assign(learning_rate=rate) for rate in (0.1, 0.3, 1.0)], ignore_index=True)
    first = stored[(stored["network"] == 0) & (stored["case"] == 0)]
    for figure in (
        figures.convergence(tables),
        figures.success_curves(tables, {}),
        figures.mse_against_loss(tables),
        figures.learning_rates(rates, quantity="loss"),
        figures.success_by_rate(rates.assign(optimizer="LBFGS")),
        figures.unfolding(outcome, "iDLG"),
        figures.single_attack(outcome, "iDLG", start=outcome.truth),
        figures.on_the_way(first, None),
        figures.recovered(first, {"digits": None}),
        figures.method_diagram(),
        figures.plan_maps({str(number): np.eye(3) / 3 for number in range(4)}),
        figures.point_plans(np.eye(2), np.eye(2), {str(number): np.eye(2) / 2 for number in range(4)}),
        figures.image_grid([[np.ones((1, 2, 2))] * 9], row_titles=["row"], column_titles=["i"] * 9),
    ):
        assert figure.get_figwidth() <= WIDTH + 0.01


def test_loss_lines_mark_where_each_loss_is_least_and_show_a_floor_of_a_few_per_cent():
    positions = np.linspace(-0.25, 1.25, 7)
    losses = {"right": positions[None] ** 2, "astray": (positions[None] - 0.5) ** 2 + 0.5}
    figure = figures.loss_lines(positions, losses, titles=["to noise"], ends=["noise"])
    [axes] = figure.axes
    assert axes.get_ylim()[0] == 1e-3
    assert "1 noise" in axes.get_xlabel()
    drawn = curves(axes)
    [least] = drawn["astray"].get_markevery()
    assert positions[least] == 0.5
    [zero] = drawn["right"].get_markevery()
    assert drawn["right"].get_ydata()[zero] == 1e-3
    assert "astray at 0.5, with 67 % of its value at 1" in figure.told


def test_neighbours_in_an_order_differ_in_colour_line_and_marker():
    for one, other in pairwise(ORDERED):
        assert one.color != other.color
        assert one.style != other.style
        assert one.marker != other.marker


def test_of_many_runs_the_way_of_the_medians_and_every_end_are_drawn(outcome):
    axes = figures.mse_against_loss({"digits": outcome.records}).axes[0]
    assert len(axes.lines) == 3  # one for each method, however many runs
    runs = outcome.records.query("method == 'iDLG'")
    ends = axes.collections[list(curves(axes)).index("iDLG")].get_offsets()
    assert len(ends) == len(runs)
    last = [trace[-1] for trace in runs["trace_mse"]]
    np.testing.assert_allclose(ends[:, 1], np.clip(last, 1e-8, 1e2))


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
        figures.loss_lines(
            np.linspace(0, 1, 3), {"squared": np.ones((1, 3))}, titles=["line"], ends=["noise"]
        ),
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
    lost = table.assign(mse=np.where(table["optimizer"] == "Adam", 1.0, table["mse"]))
    one = figures.success_by_rate(lost)
    assert [axes.get_title() for axes in one.axes] == ["LBFGS"]
    assert "Adam: nothing recovered" in one.axes[0].get_xlabel()
    assert "with Adam no method recovers anything" in one.told
    for container in figure.axes[0].containers:
        assert list(container.lines[0].get_xdata()) == [0.1, 1.0]
        assert list(container.lines[0].get_ydata()) == [1.0, 0.0]


def test_kept_mass_is_drawn_case_by_case_with_the_median(digits):
    cases = draw(digits, Design(networks=3, images=1))
    losses = {"free": Wasserstein(eps=0), "tied": Wasserstein(penalty=float("inf"))}
    attacks = [Optimised(name, "bias_sign", loss, evaluations=40) for name, loss in losses.items()]
    table = kept_along(plans_along(cases, attacks, iterations=(0, 1)))
    assert (table[table["method"] == "tied"]["kept"] == 1).all()
    assert set(table.groupby(["method", "case"])["recovered"].nunique()) == {1}
    assert table["kept"].between(0, 1 + 1e-6).all()
    marked = figures.kept_mass(table.assign(recovered=table["case"] == 0)).axes[0]
    assert [line.get_marker() for line in marked.lines[:3]] == ["*", "None", "None"]
    free = figures.kept_mass(table).axes[0]
    assert len(free.lines) == 3 + 1
    expected = table[table["method"] == "free"].groupby("iteration")["kept"].median()
    assert list(free.lines[-1].get_ydata()) == pytest.approx(list(expected))


# The closed form and the bounds


def test_cards_have_a_title_and_a_note_each_and_no_empty_frame():
    pictures = {f"picture {number}": np.full((1, 2, 2), number / 5) for number in range(5)}
    figure = figures.cards(pictures, {"picture 1": "a note"}, columns=4)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == list(pictures)
    assert [axes.get_xlabel() for axes in shown] == ["", "a note", "", "", ""]


def test_the_way_down_shows_maps_in_one_frame_and_the_error_of_each_layer():
    found = [np.arange(12 * 4.0).reshape(12, 2, 2), np.full((1, 3, 3), 0.5)]
    true = [found[0] + 0.1, found[1]]
    figure = figures.way_down(found, true, ["layer", "image"])
    above, private, image, _ = figure.axes
    assert [axes.get_title() for axes in (above, private)] == ["recovered", "private"]
    assert [axes.get_ylabel() for axes in (above, image)] == ["layer", "image"]
    assert [axes.get_xlabel() for axes in (above, image)] == ["MSE 0.01", "MSE 0"]
    shown = np.asarray(above.images[0].get_array())
    assert shown.shape == (8, 11)  # 3 rows and 4 columns of maps of 2x2, with lines between
    np.testing.assert_allclose(shown[:2, :2], found[0][0] / 47)
    assert (shown[2] == 1).all()


def test_stride_phases_are_counted_beside_the_plane():
    phases = np.tile([[0.0, 1.0], [2.0, 3.0]], (4, 4))
    plane, bars = figures.stride_phases(phases, (108, 72, 72, 48), (64,) * 4, (2, 2, 5, 5)).axes
    np.testing.assert_array_equal(plane.images[0].get_array(), phases)
    numbers = [text.get_text() for text in plane.texts]
    assert [numbers.count(str(number)) for number in (1, 2, 3, 4)] == [9, 6, 6, 4]
    assert [bar.get_width() for bar in bars.patches] == [108, 72, 72, 48]
    assert "48 for 64" in bars.texts[-1].get_text()


def test_steps_of_refinement_are_drawn_from_zero_with_the_other_attack_dotted():
    axes = figures.refinement({"low": [3.0, 1.0]}, xlabel="steps", others={"low": 0.9}).axes[0]
    curve, line = axes.lines
    assert curve.get_xdata().tolist() == [0, 1]
    assert set(line.get_ydata()) == {0.9}
    assert (axes.get_xlabel(), axes.get_yscale()) == ("steps", "log")


def test_the_first_and_the_last_directions_are_shown_with_their_deviations():
    vectors = np.random.default_rng(0).normal(size=(9, 1, 3, 3))
    figure = figures.directions(vectors, np.arange(1.0, 10.0), each=2)
    assert [axes.get_title() for axes in figure.axes] == ["1 of 9", "2 of 9", "8 of 9", "9 of 9"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["± 1", "± 2", "± 8", "± 9"]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown, 0.5 + 0.5 * vectors[0, 0] / np.abs(vectors[0]).max())


def test_a_map_of_pixels_is_the_root_mean_square_of_the_channels():
    deviations = np.stack([np.full((2, 2), 3.0), np.full((2, 2), 4.0)])
    _, drawn, _ = figures.pixel_map(np.zeros((1, 2, 2)), deviations).axes
    np.testing.assert_allclose(drawn.images[0].get_array(), np.sqrt(12.5))


def test_attacks_are_drawn_by_their_median_above_the_bound():
    table = pd.DataFrame(
        {
            "level": [0.1, 0.1, 0.1, 1.0, 1.0, 1.0],
            "method": ["LM"] * 6,
            "mse": [1.0, 2.0, 9.0, 4.0, 5.0, np.inf],
        }
    )
    bound = {0.1: 0.5, 1.0: 50.0}
    axes = figures.mse_by_noise(table, bound, lines={"guess": {0.1: 0.1, 1.0: 0.1}}).axes[0]
    drawn = curves(axes)
    assert drawn["LM"].get_ydata().tolist() == [2.0, 5.0]
    assert drawn["LM"].get_marker() == figures.LOOKS["LM"].marker
    assert drawn["guess"].get_ydata().tolist() == [0.1, 0.1]
    (region,) = axes.collections
    corners = region.get_paths()[0].vertices.tolist()
    assert [0.1, 0.5] in corners
    assert [1.0, 50.0] in corners


def test_ways_to_count_labels_are_drawn_against_the_size_of_the_batch():
    table = pd.DataFrame(
        {
            "images": [1, 8, 1, 8],
            "way": ["mean", "mean", "certain", "certain"],
            "counts": [1.0, 0.9, 1.0, 0.2],
        }
    )
    drawn = curves(figures.counts_by_batch(table).axes[0])
    assert drawn["mean"].get_xdata().tolist() == [1, 8]
    assert drawn["mean"].get_ydata().tolist() == [1.0, 0.9]
    assert drawn["certain"].get_ydata().tolist() == [1.0, 0.2]


def test_images_of_smaller_batches_stand_below_those_of_the_largest():
    truth = np.full((2, 1, 3, 3), 0.5)
    found = {1: np.zeros((1, 1, 3, 3)), 2: np.full((2, 1, 3, 3), 0.25)}
    axes = figures.recovered_together(truth, found, {1: [0.25], 2: [0.0625, 0.0625]}).axes
    shown = [float(np.asarray(one.images[0].get_array()).mean()) for one in axes]
    assert shown == [0.5, 0.5, 0.0, 1.0, 0.25, 0.25]
    assert [one.get_xlabel() for one in axes] == ["", "", "2e-01", "", "6e-02", "6e-02"]
    assert [one.get_ylabel() for one in axes[::2]] == ["private", "of 1", "of 2"]


def test_what_a_gradient_holds_is_drawn_as_a_share_of_the_pixels():
    axes = figures.rank_by_count({"small": [4, 6, 6]}, {"small": 4}).axes[0]
    np.testing.assert_allclose(curves(axes)["small"].get_ydata(), [1, 0.75, 0.5])


def test_no_spectrum_is_left_out_and_none_leaves_the_frame():
    many = {f"number {place}": ([0.0, 1.0], [1.0, 0.0]) for place in range(8)}
    axes = figures.spectra(many, tolerance=1e-6).axes[0]
    assert list(many) == [name for name in curves(axes) if name in many]
    assert axes.lines[0].get_ydata().tolist() == [1.0, 1e-10]
