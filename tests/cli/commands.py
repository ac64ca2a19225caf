"""What the tests of the command line share: how a command is run, and what it answers."""

import json
from pathlib import Path

from click.testing import CliRunner

from wdlg.cli import main

ROOT = Path(__file__).parents[2]


ATTACK = ("attack", "--dataset", "digits", "--evaluations", "40")


KEYS = {
    *("dataset", "index", "method", "label_true", "label_recovered", "status", "iterations", "evaluations"),
    *("seconds", "loss", "mse", "psnr", "ssim"),
}


def run(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def result_of(*arguments):
    answer = run(*arguments, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)
