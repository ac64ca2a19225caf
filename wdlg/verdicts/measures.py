"""The measures that decide claims, by name: each turns records into a verdict with its numbers.

``claims.yaml`` names them by the keys of :data:`MEASURES`, and holds their thresholds.
"""

from __future__ import annotations

from collections.abc import Callable

from wdlg.verdicts import before
from wdlg.verdicts.on_images import (
    fidelity,
    lower_loss,
    no_explosion,
    no_explosion_by_loss,
    order,
    paired,
    strongest,
)
from wdlg.verdicts.on_labels import dlg_labels, label_accuracy, label_cost, label_growth
from wdlg.verdicts.on_rates import large_rates, rate_calm, rate_effect
from wdlg.verdicts.on_second_order import closed_form, recovers_nearly_all, recovers_with
from wdlg.verdicts.result import Records, Result

__all__ = ["MEASURES", "Records", "Result"]

MEASURES: dict[str, Callable[..., Result]] = {
    one.__name__: one
    for one in (
        *(label_accuracy, label_cost, label_growth, dlg_labels),
        *(lower_loss, paired, order, no_explosion_by_loss, no_explosion, fidelity, strongest),
        *(large_rates, rate_effect, rate_calm),
        *(recovers_nearly_all, recovers_with, closed_form),
        *(before.label_accuracy_if_zero, before.label_cost_of_all, before.dlg_labels_of_main),
        *(before.large_rates_by_half, before.rate_threshold),
    )
}
"""The functions that decide claims, by the name that ``claims.yaml`` uses."""
