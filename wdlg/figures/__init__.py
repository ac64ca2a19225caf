"""Every picture in the book: a function takes results and returns a matplotlib figure.

What it draws of many runs, such as shares with their intervals, medians and bands, it computes by
:mod:`wdlg.study.statistics`; it attacks nothing and judges nothing.

One visual language: each method has a colour (Okabe and Ito's, safe for the colour-blind), a line style and
a marker, so that figures can be read in print. Figures are opaque, since pages have a dark mode.
"""

from wdlg.figures.audit import foretold
from wdlg.figures.batches import counts_by_batch, rank_by_count, recovered_together, spectra
from wdlg.figures.bounds import directions, directions_by_noise, mse_by_noise, pixel_map
from wdlg.figures.defences import protection_by_price, share_by_strength
from wdlg.figures.gradients import beside_gradients, hand_neuron, heat_map
from wdlg.figures.images import (
    cards,
    image_grid,
    montage,
    on_the_way,
    outcomes,
    recovered,
    show_image,
    single_attack,
    unfolding,
)
from wdlg.figures.inversion import refinement, stride_phases, way_down
from wdlg.figures.labels import bias_gradient, missed_labels, rule_accuracy, saturation
from wdlg.figures.look import LOOKS, NOT_MEASURED, Picture, save
from wdlg.figures.method import method_diagram
from wdlg.figures.page_attack import PageAttack
from wdlg.figures.price import accuracy_by_leak
from wdlg.figures.runs import convergence, learning_rates, mse_against_loss, success_curves
from wdlg.figures.slider import Frame, Slider, plan_slider, recovery_slider
from wdlg.figures.speed import speed_goals, speed_limits, speed_scaling
from wdlg.figures.studies import held_map, readings_map, success_by_rate, success_of_each
from wdlg.figures.transport import kept_mass, lines, loss_lines, plan_maps, point_plans

__all__ = [
    "LOOKS",
    "NOT_MEASURED",
    "Frame",
    "PageAttack",
    "Picture",
    "Slider",
    "accuracy_by_leak",
    "beside_gradients",
    "bias_gradient",
    "cards",
    "convergence",
    "counts_by_batch",
    "directions",
    "directions_by_noise",
    "foretold",
    "hand_neuron",
    "heat_map",
    "held_map",
    "image_grid",
    "kept_mass",
    "learning_rates",
    "lines",
    "loss_lines",
    "method_diagram",
    "missed_labels",
    "montage",
    "mse_against_loss",
    "mse_by_noise",
    "on_the_way",
    "outcomes",
    "pixel_map",
    "plan_maps",
    "plan_slider",
    "point_plans",
    "protection_by_price",
    "rank_by_count",
    "readings_map",
    "recovered",
    "recovered_together",
    "recovery_slider",
    "refinement",
    "rule_accuracy",
    "saturation",
    "save",
    "share_by_strength",
    "show_image",
    "single_attack",
    "spectra",
    "speed_goals",
    "speed_limits",
    "speed_scaling",
    "stride_phases",
    "success_by_rate",
    "success_curves",
    "success_of_each",
    "unfolding",
    "way_down",
]
