"""Every command explains itself, and answers a mistake with one sentence and exit code 2."""

import pytest
from commands import ATTACK, run


@pytest.mark.parametrize("command", [(), ("attack",), ("labels",), ("data",), ("data", "fetch"), ("book",)])
def test_every_command_explains_itself(command):
    answer = run(*command, "--help")
    assert answer.exit_code == 0
    assert "Usage:" in answer.stdout


MISTAKES = {
    "unknown data set": ((*ATTACK[:2], "cifar", "--method", "idlg"), "dataset is 'cifar'"),
    "unknown method": ((*ATTACK, "--method", "sdlg"), "--method is 'sdlg'"),
    "index beyond the sample": ((*ATTACK, "--method", "idlg", "--index", 5000), "--index is 5000"),
    "negative index": ((*ATTACK, "--method", "idlg", "--index", -1), "--index is -1"),
    "no evaluations": ((*ATTACK, "--method", "idlg", "--evaluations", 0), "--evaluations is 0"),
    "evaluations beyond memory": ((*ATTACK, "--method", "idlg", "--evaluations", 10**12), "at most 10000000"),
    "gradients beyond memory": (("labels", "--dataset", "digits", "--images", 10**12), "--images is 10000"),
    "no learning rate": ((*ATTACK, "--method", "idlg", "--learning-rate", 0), "--learning-rate is 0.0"),
    "learning rate nan": ((*ATTACK, "--method", "idlg", "--learning-rate", "nan"), "--learning-rate is nan"),
    "learning rate of lm": (
        (*ATTACK, "--method", "lm", "--learning-rate", 1),
        "--learning-rate is 1.0, but must be left out with --method lm, whose",
    ),
    "first loss of lm": (
        ("attack", "--dataset", "digits", "--method", "lm", "--first-loss", 1),
        "--first-loss is 1.0, but must be left out with --method lm, whose",
    ),
    "evaluations of exact": (
        (*ATTACK, "--method", "exact"),
        "--evaluations is 40, but must be left out with --method exact, which",
    ),
    "learning rate of exact, even at its default": (
        ("attack", "--dataset", "digits", "--method", "exact", "--learning-rate", 1),
        "--learning-rate is 1.0, but must be left out with --method exact, which",
    ),
    "first loss of exact": (
        ("attack", "--dataset", "digits", "--method", "exact", "--first-loss", 1),
        "--first-loss is 1.0, but must be left out with --method exact, which",
    ),
    "first loss of nothing": ((*ATTACK, "--method", "idlg", "--first-loss", 0), "--first-loss is 0.0, but"),
    "variation of lm": (
        (*ATTACK, "--method", "lm", "--total-variation", 1),
        "--total-variation is 1.0, but must be left out with --method lm, whose",
    ),
    "attempts of exact": (
        ("attack", "--dataset", "digits", "--method", "exact", "--attempts", 2),
        "--attempts is 2, but must be left out with --method exact, which",
    ),
    "no attempts": ((*ATTACK, "--method", "idlg", "--attempts", 0), "--attempts is 0, but must be"),
    "no variation": ((*ATTACK, "--method", "idlg", "--total-variation", 0), "--total-variation is 0.0, but"),
    "negative seed": ((*ATTACK, "--method", "idlg", "--seed", -2), "seed is -2"),
    "figure that is no png": ((*ATTACK, "--method", "idlg", "--figure", "a.gif"), "--figure is 'a.gif'"),
    "one file for two": (
        (*ATTACK, "--method", "idlg", "--figure", "a.png", "--save", "a.png"),
        "--save is 'a.png', as --figure is",
    ),
    "picture that is no png": ((*ATTACK, "--method", "idlg", "--save", "a.gif"), "--save is 'a.gif'"),
    "figure in no folder": ((*ATTACK, "--method", "idlg", "--figure", "no/a.png"), "--figure is 'no/a.png'"),
    "label without picture": ((*ATTACK, "--method", "idlg", "--label", 1), "--label is 1"),
    "picture without label": ((*ATTACK, "--method", "idlg", "--image", "a.png"), "--label is missing"),
    "label beyond": ((*ATTACK, "--method", "idlg", "--image", "a.png", "--label", 10), "--label is 10"),
    "no picture": ((*ATTACK, "--method", "idlg", "--image", "a.png", "--label", 1), "image a.png cannot be"),
    "weights without model": (
        (*ATTACK, "--method", "idlg", "--weights", "a.pt"), "--weights is 'a.pt', but is allowed only"
    ),
    "unknown activation": (("labels", "--dataset", "digits", "--activation", "elu"), "--activation is 'elu'"),
    "no images": (("labels", "--dataset", "digits", "--images", 0), "--images is 0"),
    "missing sample file": (("labels", "--dataset", "svhn", "--data-dir", "nowhere"), "no sample file"),
    "unknown defence": ((*ATTACK, "--method", "idlg", "--defence", "fog"), "--defence 'fog': defence"),
    "defence without its setting": (("labels", "--dataset", "digits", "--defence", "noise"), "no 'level'"),
    "defence beyond single precision": (
        (*ATTACK, "--method", "idlg", "--defence", "noise,level=1e45"),
        "defence makes an entry of the gradient NaN or infinite",
    ),
    "clipping beyond single precision": (
        ("labels", "--dataset", "digits", "--defence", "clipped_noise,clip=1e30,multiplier=1e30"),
        "defence makes an entry of the gradient NaN or infinite",
    ),
    "defence out of range": ((*ATTACK, "--method", "idlg", "--defence", "pruning,share=1"), "share is 1"),
    "unknown profile": (("book", "--profile", "huge"), "--profile is 'huge'"),
    "data in a file": (("data", "list", "--data-dir", __file__), "data_dir is "),
    "fetch into a file": (("data", "fetch", "mnist", "--data-dir", __file__), "data_dir is "),
    "fetch of no images": (("data", "fetch", "mnist", "svhn", "--images", 0), "--images is 0"),
    "fetch with a negative seed": (("data", "fetch", "mnist", "svhn", "--seed", -1), "--seed is -1"),
    "fetch of an embedded set": (("data", "fetch", "digits"), "NAME is 'digits'"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_in_one_sentence_and_exit_code_2(arguments, sentence):
    answer = run(*arguments)
    assert answer.exit_code == 2, answer.output
    assert answer.stdout == ""
    assert answer.stderr.startswith("wdlg: ")
    assert answer.stderr.count("\n") == 1
    assert sentence in answer.stderr


def test_book_outside_a_checkout_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run("book")
    assert answer.exit_code == 2
    assert "must be in a checkout" in answer.stderr
