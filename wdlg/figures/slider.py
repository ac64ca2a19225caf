"""Pictures that a reader moves through with a slider: in one piece of HTML, without a server or a network.

Frames are small images (one pixel of the file for one of the data), enlarged by the browser; titles and notes
are text. So a page stays small, and the text follows the page's colours and can be read aloud. Without
scripts a page shows the frame that the slider starts at; a PDF shows a figure with a few of them. A slider
may play by itself, once, with a button that stops it; for a reader who asks for reduced motion it waits for
the button.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from wdlg.evaluation import recovered
from wdlg.figures.images import image_grid
from wdlg.figures.look import Picture, told_beside
from wdlg.study.paired import Outcome

SHOWN_WITHOUT_SCRIPT = 5
"""Frames of the figure that stands in for the slider where there is no HTML."""

STYLE = """<style>
.wdlg-slider-row { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr);
  grid-template-rows: auto auto auto; column-gap: 0.5rem; margin: 0 0 0.5rem; }
.wdlg-slider-row > div { display: grid; grid-row: span 3; grid-template-rows: subgrid; align-items: end;
  text-align: center; font-size: 0.85em; }
.wdlg-slider-row span { align-self: start; }
.wdlg-slider-row img { width: 100%; image-rendering: pixelated; display: block; background: #fff; }
@media (max-width: 40rem) {
  .wdlg-slider-row:has(> :nth-child(4)) { grid-auto-flow: row; grid-template-rows: none; row-gap: 0.25rem;
    grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .wdlg-slider-row:has(> :nth-child(5)) { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
.wdlg-slider label:not([hidden]) { display: flex; gap: 0.75rem; align-items: center; }
.wdlg-slider input { flex: 1 1 auto; min-width: 6rem; }
.wdlg-slider output { min-width: 6rem; }
.wdlg-slider button { min-width: 4.5rem; min-height: 2rem; font: inherit; }
</style>"""

STEP = 300
"""Milliseconds that a frame of a slider that plays is shown."""

SCRIPT = """<script>
(() => {
  const box = document.getElementById("ID");
  const frames = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  const input = box.querySelector("input");
  const columns = [...box.querySelectorAll(".wdlg-slider-row > div")];
  const show = () => {
    const frame = frames[Number(input.value)];
    columns.forEach((column, place) => {
      const image = column.querySelector("img");
      image.src = "data:image/png;base64," + frame.images[place];
      image.alt = frame.alts[place];
      column.querySelector("span").textContent = frame.notes[place];
    });
    input.setAttribute("aria-valuetext", [frame.name, ...frame.said].join("; "));
    box.querySelector("output").textContent = frame.name;
  };
  input.addEventListener("input", show);
  box.querySelector("label").hidden = false;
  show();
  const button = box.querySelector("button");
  if (!button) return;
  let timer = 0;
  const pause = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  const play = () => {
    if (Number(input.value) === frames.length - 1) input.value = 0;
    show();
    button.textContent = "Pause";
    timer = setInterval(() => {
      input.value = Number(input.value) + 1;
      show();
      if (Number(input.value) === frames.length - 1) pause();
    }, STEP);
  };
  input.addEventListener("input", pause);
  input.addEventListener("focus", pause);
  button.addEventListener("click", () => (timer ? pause() : play()));
  button.hidden = false;
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
})();
</script>"""


@dataclass(frozen=True)
class Frame:
    """What the slider shows at one place.

    Attributes:
        name: of the place, for example "iteration 20" or "eps = 0.1".
        images: one for each column, (C, H, W), one or three channels, clamped to [0, 1].
        notes: a short text under each image.
    """

    name: str
    images: Sequence[np.ndarray]
    notes: Sequence[str]


class Slider:
    """Columns of pictures with a slider underneath, shown by a notebook as HTML, elsewhere as a figure.

    Args:
        frames: at least one.
        columns: a title for each column.
        variable: what the slider moves through, for its label.
        start: number of the frame that is shown first.
        plays: move through all frames once when the page is opened.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        *,
        columns: Sequence[str],
        variable: str,
        start: int = 0,
        plays: bool = False,
    ) -> None:
        self.frames = list(frames)
        self.columns = list(columns)
        self.variable = variable
        self.start = start
        self.plays = plays

    def _repr_html_(self) -> str:
        content = [
            {
                "name": frame.name,
                "images": [_png(image) for image in frame.images],
                "notes": list(frame.notes),
                "alts": [
                    ", ".join(filter(None, (title, frame.name, note)))
                    for title, note in zip(self.columns, frame.notes, strict=True)
                ],
                "said": [
                    f"{title} {note}" for title, note in zip(self.columns, frame.notes, strict=True) if note
                ],
            }
            for frame in self.frames
        ]
        # "<" would end the script element early if a title held "</script>".
        data = json.dumps(content).replace("<", "\\u003c")
        name = f"slider-{hashlib.sha256(data.encode()).hexdigest()[:12]}"
        first = content[self.start]
        row = "".join(
            f"<div>{html.escape(title)}"
            f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{image}">'
            f"<span>{html.escape(note)}</span></div>"
            for title, alt, image, note in zip(
                self.columns, first["alts"], first["images"], first["notes"], strict=True
            )
        )
        button = '<button type="button" hidden>Play</button>' if self.plays else ""
        script = SCRIPT.replace("ID", name).replace("STEP", str(STEP))
        return (
            f"{STYLE}"
            f'<div class="wdlg-slider" id="{name}" role="group" aria-label="{html.escape(self.variable)}">'
            f'<div class="wdlg-slider-row">{row}</div>'
            f"{button}<label hidden>{html.escape(self.variable)}"
            f'<input type="range" min="0" max="{len(content) - 1}" value="{self.start}" step="1">'
            "<output></output></label>"
            f'<script type="application/json">{data}</script>'
            f"</div>{script}"
        )

    def static(self) -> Picture:
        """A few of the frames below each other, the first and the last among them."""
        places = np.unique(np.linspace(0, len(self.frames) - 1, SHOWN_WITHOUT_SCRIPT).round().astype(int))
        chosen = [self.frames[place] for place in places]
        return image_grid(
            [list(frame.images) for frame in chosen],
            row_titles=[frame.name for frame in chosen],
            column_titles=self.columns,
            notes=[list(frame.notes) for frame in chosen],
        )

    def _repr_png_(self) -> bytes:
        return self.static()._repr_png_()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], ...]:
        ends = [
            f"at {frame.name} "
            + ", ".join(
                f"{title}: {note}" for title, note in zip(self.columns, frame.notes, strict=True) if note
            )
            for frame in (self.frames[0], self.frames[-1])
        ]
        return told_beside(f"{ends[0][:1].upper()}{ends[0][1:]}; {ends[1]}.")


def _png(image: np.ndarray) -> str:
    """An image (C, H, W) as a PNG in base64."""
    pixels = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def recovery_slider(outcome: Outcome, *, case: int = 0, plays: bool = False) -> Slider:
    """One case, all methods side by side and the private image, from snapshot to snapshot.

    Args:
        outcome: with snapshots.
        case: which one.
        plays: move through all snapshots when the page is opened; until then, the last one is shown.
    """
    truth = outcome.truth[case]
    frames = []
    for place, iteration in enumerate(outcome.snapshot_iterations):
        images = [snapshots[place, case] for snapshots in outcome.snapshots.values()]
        notes = [_with_outcome(float(np.mean((image - truth) ** 2))) for image in images]
        frames.append(Frame(f"iteration {iteration}", [*images, truth], [*notes, ""]))
    return Slider(
        frames,
        columns=[*outcome.snapshots, "private image"],
        variable="Iteration",
        start=len(frames) - 1 if plays else 0,
        plays=plays,
    )


def _with_outcome(mse: float) -> str:
    """An MSE in words, and whether the image counts as recovered."""
    return f"MSE {mse:.2g}" + (", recovered" if recovered(mse) else "")


def plan_slider(plans: Mapping[str, Mapping[str, np.ndarray]], *, variable: str) -> Slider:
    """Transport plans (n, n) as maps: rows of the dummy gradient down, rows of the shared one across.

    An entry is dark where a large share of its row's mass goes, in tones that grow with the root of the
    share, so that an even spread is grey and not blank; mass in its own place is on the diagonal.

    Args:
        plans: by name of the place on the slider, and by column.
        variable: what the slider moves through.
    """
    frames = []
    for name, columns in plans.items():
        shares = [np.clip(plan * len(plan), 0, 1) for plan in columns.values()]
        images = [colormaps["Greys"](np.sqrt(share))[..., :3].transpose(2, 0, 1) for share in shares]
        frames.append(Frame(name, images, [f"{np.trace(plan):.0%} in place" for plan in columns.values()]))
    return Slider(frames, columns=list(next(iter(plans.values()))), variable=variable)
