"""A study of a few seconds on the digits that come with scikit-learn."""

import pandas as pd

from wdlg.study.specification import from_mapping

CONTENT = {
    "name": "small",
    "seed": 3,
    "pool": "final",
    "attacks": {
        "iDLG": {"label_rule": "row_sum"},
        "WDLG": {"label_rule": "bias_sign", "loss": {"name": "wasserstein", "eps": 0.5}},
    },
    "parts": {
        "main": {
            "datasets": ["digits"],
            "attacks": ["iDLG", "WDLG"],
            "networks": 3,
            "images": 2,
            "evaluations": 40,
        },
        "rates": {
            "datasets": ["digits"],
            "attacks": ["iDLG"],
            "networks": 1,
            "images": 2,
            "evaluations": 20,
            "optimizer": {"name": "gradient_descent"},
            "learning_rates": [0.1, 1],
        },
        "labels": {"datasets": ["digits"], "activations": ["sigmoid"], "gradients": 5},
    },
}

DEFENDED = {
    **CONTENT,
    "parts": {
        "main": {
            **CONTENT["parts"]["main"],
            "defences": [
                {"name": "none"},
                {"name": "noise", "level": 0.1},
                {"name": "pruning", "share": 0.5},
            ],
        },
        "labels": {
            **CONTENT["parts"]["labels"],
            "defences": [{"name": "quantisation", "bits": 4}, {"name": "noise", "level": 1.0}],
        },
    },
}
"""The same with defences, of what is sent in the main part and of what labels are read from."""


def small_study(**changes):
    """The study, with top-level keys of its file replaced."""
    return from_mapping({**CONTENT, **changes})


def same(first, second):
    """Records are equal, but for the time that they took."""
    pd.testing.assert_frame_equal(first.drop(columns=["seconds"]), second.drop(columns=["seconds"]))


def contents(folder):
    """Every file of a folder with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
