"""What files of records mean that an earlier version wrote: this module only grows.

Records carry every setting that decides them. Files of schema 1 left out what was at its default, and a
setting that is new in the library stands in no older file. What is missing there had the value that
:func:`complete` fills in. So a default may change, and records of its old value are then seen to be others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA = 2
"""Of the files that are written now. In schema 1 the digest was of settings and records only."""

SET_ASIDE = "set-aside"
"""Folder in a store for files that are not records of its study."""

LABEL = "store.json"
"""File in a store that says whose it is."""

RESERVED = (SET_ASIDE, LABEL)
"""Names in a store that no part of a study can have."""

ATTACK: dict[str, Any] = {
    "loss": {"name": "squared_euclidean"},
    "optimizer": {"name": "lbfgs"},
    "evaluations": 6000,
    "stop_loss": 1e-6,
    "priors": [],
    "projection": None,
    "first_loss": None,
}
LOSSES: dict[str, dict[str, Any]] = {
    "pseudo_huber": {"scale": 0.01},
    "wasserstein": {
        "eps": 0.1,
        "max_iterations": 100,
        "threshold": 1e-3,
        "points": "rows",
        "kernel_width": 5,
        "mass": "share",
        "cost": "squared",
        "huber_scale": 0.01,
        "root": "none",
        "relative": False,
        "value": "plain",
        "derivative": "envelope",
        "penalty": 0.0,
    },
    "weighted_euclidean": {"weights": "relative"},
    "sliced_wasserstein": {"projections": 50, "seed": 0, "root": "none"},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "lbfgs": {
        "learning_rate": 1.0,
        "history": 100,
        "inner_iterations": 20,
        "tolerance_grad": 1e-7,
        "tolerance_change": 1e-9,
    },
    "gradient_descent": {"learning_rate": 1.0},
    "adam": {
        "learning_rate": 0.1,
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
        "signed": False,
        "milestones": [],
        "decay": 0.1,
    },
    "levenberg_marquardt": {
        "damping": 1e-6,
        "fall": 3.0,
        "tolerance": 1e-6,
        "least_gain": 1e-4,
        "precision": "double",
        "acceleration": 0.0,
    },
}
DESIGN = {
    "networks": 10,
    "images": 1,
    "seed": 0,
    "activation": "sigmoid",
    "initial": "uniform",
    "classes": None,
    "first_image": None,
    "first_network": 0,
    "pool": "all",
    "defence": None,
    "starts": 1,
    "start_distance": None,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "lenet": {"channels": 12, "strides": [2, 2, 1], "bound": 0.5},
}
STREAMS = {"network": 0, "image order": 1, "dummy": 2, "defence": 3}
RECORDED = {
    "divergence": 1e6,
    "explosion": 10.0,
    "success_thresholds": [1e-2, 5e-3, 1e-3, 5e-4, 1e-4],
    "trace_points": 80,
    "picture_iterations": [5, 20, 60, 300],
    "picture_networks": 4,
    "development_every": 5,
}

NAMES = (
    *("iDLG tuned", "Strongest, least bias", "sent entries only", "squared (iDLG)"),
    *("pseudo-Huber 0.01", "pseudo-Huber 0.1", "rows, eps 0.1 (WDLG)", "rows, eps 0.01 relative"),
    *("rows, exact", "rows, exact, root", "rows, dual", "rows, debiased", "rows, unrolled", "rows, sliced"),
    *("rows, exact, penalty 5", "rows, exact, penalty 5, root", "scalars, exact", "tensors, root each"),
    *("kernels, exact", "kernels, eps 0.01 relative", "kernels, exact, mass one", "kernels, exact, root"),
    *("kernels, eps 0.01 relative, mass one", "kernels, debiased"),
    *("identity, share", "identity, share, root", "identity, relative", "identity, relative, root"),
    *("identity, Euclidean cost", "identity, Euclidean cost, share", "identity, pseudo-Huber cost"),
)
"""Names of attacks whose files were named when each run of other characters than letters and digits was
written as one hyphen."""


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file of records with all that its version left out.

    >>> old = {"kind": "attack", "dataset": "mnist", "attack": {"label_rule": "joint"}, "design": {"seed": 5}}
    >>> complete(old)["attack"]["optimizer"]["history"], complete(old)["design"]["seed"]
    (100, 5)

    Raises:
        KeyError, TypeError: these are no settings of records.
    """
    # Before networks had names, all were LeNets.
    network = {"name": "lenet", **settings.get("network", {})}
    network = {**NETWORKS.get(network["name"], {}), **network}
    if settings["kind"] == "labels":
        rules = ["bias_sign", "bias_min", "row_sum"] if settings.get("defence") else ["bias_sign", "row_sum"]
        return {
            **{"streams": STREAMS, "initial": "uniform", "defence": None, "rules": rules, "dtype": "float32"},
            **settings,
            "network": network,
        }
    attack = {**ATTACK, **settings["attack"]}
    for field, known in (("loss", LOSSES), ("optimizer", OPTIMIZERS)):
        attack[field] = {**known.get(attack[field]["name"], {}), **attack[field]}
    return {
        "streams": STREAMS,
        "recorded": RECORDED,
        **settings,
        "network": network,
        "attack": attack,
        "design": {**DESIGN, **settings["design"]},
    }
