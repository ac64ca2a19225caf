"""A study of a few seconds on the digits that come with scikit-learn."""

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


def small_study(**changes):
    """The study, with top-level keys of its file replaced."""
    return from_mapping({**CONTENT, **changes})
