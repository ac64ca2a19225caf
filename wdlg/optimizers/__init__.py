"""Optimisers for many attacks at once: settings in a frozen dataclass, explicit state, no hidden globals."""

from wdlg.optimizers.first_order import Adam, GradientDescent
from wdlg.optimizers.lbfgs import LBFGS
from wdlg.optimizers.state import Optimizer, State

__all__ = ["LBFGS", "Adam", "GradientDescent", "Optimizer", "State"]
