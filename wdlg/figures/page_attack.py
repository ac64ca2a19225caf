"""An attack that runs in the page: a reader draws a digit and recovers it from its gradient.

Everything is in one piece of HTML: the network's weights, a few digits to begin with, and a script without
dependencies (``attack.js`` beside this file), which does what :class:`wdlg.attacks.exact.Exact` does. It asks
nothing of a server or a network. Without scripts, in a PDF and in print a sentence stands in its place.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from wdlg.errors import InputError

SCRIPT = Path(__file__).with_name("attack.js")
TAPS = 25
"""Of the network's kernels, 5x5."""

CLASSES = 10
SIDE = 28
"""Of the pictures that are drawn."""

LEVELS = (0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3)
"""Of the noise, at the places of its slider: its length over that of the gradient."""

STYLE = """<style>
.wdlg-attack-pictures { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 0.75rem;
  margin: 0.75rem 0; }
.wdlg-attack-pictures > div { display: grid; grid-row: span 3; grid-template-rows: subgrid; row-gap: 0.25rem;
  align-items: end; text-align: center; font-size: 0.85em; }
.wdlg-attack-pictures span { align-self: start; min-height: 1.5em; }
.wdlg-attack canvas { width: 100%; aspect-ratio: 1; image-rendering: pixelated; display: block;
  box-sizing: border-box; border: 1px solid #888; }
.wdlg-attack [data-part="sheet"] { cursor: crosshair; touch-action: none; }
.wdlg-attack-row { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; margin: 0.5rem 0; }
.wdlg-attack button, .wdlg-attack select { font: inherit; color: inherit; background: transparent;
  border: 1px solid currentColor; border-radius: 0.25rem; padding: 0.3rem 0.7rem; min-height: 2.5rem;
  cursor: pointer; }
.wdlg-attack option { color: #000; background: #fff; }
.wdlg-attack button[aria-pressed="true"] { outline: 2px solid currentColor; outline-offset: -4px; }
.wdlg-attack button[data-part="recover"] { font-weight: 700; }
.wdlg-attack :is(button, select, input):focus-visible { outline: 3px solid; outline-offset: 2px; }
.wdlg-attack input { flex: 1 1 10rem; min-width: 8rem; min-height: 2.5rem; }
.wdlg-attack [data-part="level"] { min-width: 12rem; }
.wdlg-attack-told { min-height: 3.2em; margin: 0.5rem 0; }
@media screen { .wdlg-attack-here > .wdlg-attack-note { display: none; } }
@media print { .wdlg-attack-live { display: none; } }
@media (max-width: 40rem) {
  .wdlg-attack-pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
</style>"""

PAGE = """<div class="wdlg-attack" id="$ID" role="group" aria-label="An attack in the page">
<p class="wdlg-attack-note"><em>An attack runs here where scripts do: in the pages of this book, in a
browser. The figures of this chapter show what it recovers.</em></p>
<div class="wdlg-attack-live" data-part="live" hidden>
<div class="wdlg-attack-row" role="group" aria-label="Private digit">Private digit: $EXAMPLES
<button type="button" data-example="none" aria-pressed="false">an empty sheet</button>
<label>its label <select data-part="label">$OPTIONS</select></label></div>
<div class="wdlg-attack-pictures">$PICTURES</div>
<div class="wdlg-attack-row"><button type="button" data-part="recover">Recover the digit</button>
<span data-part="progress" aria-hidden="true"></span></div>
<div class="wdlg-attack-row"><label for="$ID-noise">Noise added to the gradient</label>
<input type="range" id="$ID-noise" data-part="noise" min="0" max="$LAST" value="0" step="1"
aria-valuetext="none">
<output data-part="level" for="$ID-noise">none</output></div>
<p class="wdlg-attack-told" data-part="status" role="status"></p>
<p class="wdlg-attack-told" data-part="bound"></p></div>
<script type="application/json">$DATA</script></div>
<script>$SCRIPT
window.wdlgAttack.attach(document.getElementById("$ID"));</script>"""

PICTURES = (
    ("sheet", SIDE, "private digit", "private: draw here"),
    ("sent", 0, "shared gradient as a heat map", "sent: the gradient"),
    ("closed", SIDE, "recovered by the closed form", "recovered: closed form"),
    ("fitted", SIDE, "recovered by the closed form and the fit", "recovered: then fitted"),
)
"""Part, side in pixels (0: as the gradient needs), name for those who cannot see it, title."""


class PageAttack:
    """A digit to draw or to choose, its gradient, the digit recovered, and a slider that adds noise.

    Args:
        weights: of the network, weight and bias of each layer as arrays: convolutions with 5x5 kernels,
            (filters, channels * 25) and (filters,), each with a sigmoid, then a linear layer.
        strides: of the convolutions.
        pictures: to begin with, (N, 28, 28) or (N, 1, 28, 28) with values in [0, 1].
        labels: theirs, from 0 to 9, (N,).
        constants: c of their bounds, ``MSE >= c level²`` (:attr:`wdlg.limits.Limits.constant`); None for an
            estimate by the page, as for what is drawn.

    Raises:
        InputError: the shapes are not those of such a network and such pictures.

    >>> import numpy as np
    >>> weights = [np.zeros((12, 25)), np.zeros(12), np.zeros((10, 12 * 14 * 14)), np.zeros(10)]
    >>> attack = PageAttack(weights, strides=(2,), pictures=np.zeros((1, 28, 28)), labels=[3])
    >>> attack.entries
    23842
    """

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        *,
        strides: Sequence[int],
        pictures: np.ndarray,
        labels: Sequence[int],
        constants: Sequence[float] | None = None,
    ) -> None:
        self.weights = [np.asarray(one, dtype=np.float32) for one in weights]
        self.strides = [int(stride) for stride in strides]
        self.pictures = np.asarray(pictures, dtype=float).reshape(len(labels), -1)
        self.labels = [int(label) for label in labels]
        self.constants: list[float | None]
        self.constants = [None] * len(self.labels) if constants is None else [float(one) for one in constants]
        if self.pictures.shape[1] != SIDE**2:
            raise InputError(f"pictures have {self.pictures.shape[1]} pixels, but must have {SIDE**2}.")
        if [one.shape for one in self.weights] != self._shapes():
            raise InputError(
                f"weights have the shapes {[one.shape for one in self.weights]}, but must be of "
                f"{len(self.strides)} convolutions with 5x5 kernels and a linear layer of {CLASSES} classes: "
                f"{self._shapes()}."
            )

    @property
    def entries(self) -> int:
        """Of the gradient."""
        return sum(one.size for one in self.weights)

    def layers(self) -> list[dict[str, int]]:
        """Geometry of the convolutions, first to last."""
        found, channels, side = [], 1, SIDE
        for weight, stride in zip(self.weights[::2], self.strides, strict=False):
            filters = len(weight)
            found.append(
                {"channels": channels, "height": side, "width": side, "filters": filters, "stride": stride}
            )
            channels, side = filters, -(-side // stride)
        return found

    def _shapes(self) -> list[tuple[int, ...]]:
        layers = self.layers()
        last = layers[-1]
        features = last["filters"] * (-(-last["height"] // last["stride"])) ** 2
        weights = [(layer["filters"], layer["channels"] * TAPS) for layer in layers] + [(CLASSES, features)]
        return [shape for rows, columns in weights for shape in ((rows, columns), (rows,))]

    def data(self) -> dict[str, Any]:
        """What the script reads: the network, and pictures of 256 levels of grey."""
        numbers = np.concatenate([one.ravel() for one in self.weights]).astype("<f4")
        grey = (np.clip(self.pictures, 0, 1) * 255).round().astype(np.uint8)
        return {
            "levels": LEVELS,
            "network": {"layers": self.layers(), "classes": CLASSES, "weights": _base64(numbers)},
            "examples": [
                {"pixels": _base64(picture), "label": label, "constant": constant}
                for picture, label, constant in zip(grey, self.labels, self.constants, strict=True)
            ],
        }

    def _repr_html_(self) -> str:
        data = json.dumps(self.data())
        name = f"attack-{hashlib.sha256(data.encode()).hexdigest()[:12]}"
        side = int(np.ceil(np.sqrt(self.entries)))
        parts = {
            "ID": name,
            "EXAMPLES": "".join(
                f'<button type="button" data-example="{number}" aria-pressed="{str(not number).lower()}">'
                f"a {label}</button>"
                for number, label in enumerate(self.labels)
            ),
            "OPTIONS": "".join(f"<option>{label}</option>" for label in range(CLASSES)),
            "PICTURES": "".join(
                f'<div>{title}<canvas data-part="{part}" width="{size or side}" height="{size or side}" '
                f'role="img" data-name="{told}" aria-label="{told}"></canvas><span data-note></span></div>'
                for part, size, told, title in PICTURES
            ),
            "LAST": str(len(LEVELS) - 1),
            "DATA": data,
            "SCRIPT": SCRIPT.read_text(encoding="utf-8"),
        }
        return STYLE + Template(PAGE).substitute(parts)

    def __repr__(self) -> str:
        return "An attack in the page: see it in a browser."


def _base64(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode()
