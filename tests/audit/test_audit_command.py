"""`wdlg audit` prints one object, writes one page, and tells a mistake in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import wdlg
from wdlg.cli import main

HERE = Path(__file__).parent / "models_for_tests.py"


def run(*arguments):
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], catch_exceptions=False)


FITTING = ("--image-shape", "1,8,8", "--dataset", "digits")


def test_the_command_prints_one_object_and_writes_a_page(tmp_path):
    result = run(
        "--model", f"{HERE}:lenet", *FITTING, "--index", 3, "--noise", 0.01, "--noise", 0.1,
        "--evaluations", 20, "--report", tmp_path / "leak.html", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert list(told["directions"]) == ["0.01", "0.1"]
    assert told["rank"] == 64
    assert told["seed"] == 0
    assert (tmp_path / "leak.html").read_text().startswith("<!doctype html>")


MISTAKES = {
    "no colon": (("--model", "nothing", *FITTING), "must be package.module:factory"),
    "no module": (("--model", "no_such_module:make", *FITTING), "cannot be imported (ModuleNotFoundError"),
    "no file": (("--model", "nowhere.py:make", *FITTING), "but there is none"),
    "no name": (("--model", f"{HERE}:missing", *FITTING), "has no missing"),
    "number": (("--model", f"{HERE}:number", *FITTING), "gives a int"),
    "broken": (("--model", f"{HERE}:broken", *FITTING), "ValueError: the weights are gone"),
    "random": (("--model", f"{HERE}:Random", *FITTING), "must draw no random numbers"),
    "shape": (("--model", f"{HERE}:lenet", "--image-shape", "1,8", "--dataset", "digits"), "must be C,H,W"),
    "other images": (("--model", f"{HERE}:lenet", "--image-shape", "1,8,8", "--dataset", "photographs"),
                     "has images of shape"),
    "other shape": (("--model", f"{HERE}:lenet", "--image-shape", "3,8,8", "--dataset", "digits"),
                    "does not take images of shape"),
    "no images": (("--model", f"{HERE}:lenet", "--image-shape", "1,8,8"), "--dataset or by --images"),
    "label": (("--model", f"{HERE}:Pooled", *FITTING, "--index", 0), "from 0 to 3"),
    "rate": (("--model", f"{HERE}:lenet", *FITTING, "--local-steps", 2), "needs --learning-rate"),
    "smoothing 1": (("--model", f"{HERE}:lenet", *FITTING, "--label-smoothing", 1), "must be below 1"),
    "smoothing": (("--model", f"{HERE}:lenet", *FITTING, "--label-smoothing", -0.5), "0 or above"),
    "rate 0": (("--model", f"{HERE}:lenet", *FITTING, "--local-steps", 2, "--learning-rate", 0), "above 0"),
    "delta": (("--model", f"{HERE}:lenet", *FITTING, "--delta"), "needs --gradient"),
    "mean": (("--model", f"{HERE}:lenet", *FITTING, "--mean", "0.1"), "belong together"),
    "std": (("--model", f"{HERE}:lenet", *FITTING, "--mean", "0.1", "--std", "0"), "above 0"),
    "report": (("--model", f"{HERE}:lenet", *FITTING, "--report", "leak.txt"), "ends in .html"),
    "gradient": (("--model", f"{HERE}:lenet", *FITTING, "--gradient", "nowhere.pt"), "but there is none"),
    "kind": (("--model", f"{HERE}:lenet", *FITTING, "--gradient", "message.pickle"), "must end in one of"),
    "weights": (("--model", f"{HERE}:lenet", *FITTING, "--weights", "nowhere.pt"), "but there is none"),
    "noise": (("--model", f"{HERE}:lenet", *FITTING, "--noise", "-1"), "0 or above"),
    "defence": (("--model", f"{HERE}:lenet", *FITTING, "--defence", "noise"), "noise,level=VALUE"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_written(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, told = MISTAKES[case]
    page = () if "--report" in arguments else ("--report", "leak.html")
    result = run(*arguments, *page)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
    assert result.output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_pictures_of_a_folder_are_one_message(tmp_path):
    from PIL import Image

    sample = wdlg.data.load("digits")
    for place in (3, 5):
        folder = tmp_path / f"class{place}"
        folder.mkdir()
        Image.fromarray(sample.images[place, ..., 0]).save(folder / "one.png")
    result = run(
        "--model", f"{HERE}:lenet", "--image-shape", "1,8,8", "--images", tmp_path, "--evaluations", 5,
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["message"]["images"] == 2
    assert told["labels"]["true"] == [0, 1]
