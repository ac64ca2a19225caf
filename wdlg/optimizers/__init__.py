"""Optimisers for many attacks at once: settings in a frozen dataclass, explicit state, no hidden globals."""

from wdlg.optimizers.first_order import Adam, GradientDescent
from wdlg.optimizers.lbfgs import LBFGS
from wdlg.optimizers.levenberg_marquardt import LevenbergMarquardt
from wdlg.optimizers.state import Optimizer, SquaresOptimizer, State
from wdlg.registry import Registry

OPTIMIZERS = Registry(
    "OPTIMIZERS",
    {
        "lbfgs": LBFGS,
        "gradient_descent": GradientDescent,
        "adam": Adam,
        "levenberg_marquardt": LevenbergMarquardt,
    },
)
"""Optimisers by the names that study files give them."""

__all__ = [
    "LBFGS",
    "OPTIMIZERS",
    "Adam",
    "GradientDescent",
    "LevenbergMarquardt",
    "Optimizer",
    "SquaresOptimizer",
    "State",
]
