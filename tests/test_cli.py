"""The command line keeps the promises of its help: JSON, the same seed the same numbers, polite mistakes."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image
from small_study import CONTENT

from wdlg import data, figures, project
from wdlg.attacks import IDLG, LM, WDLG
from wdlg.attacks.exact import Exact
from wdlg.cli import main
from wdlg.errors import InputError

ROOT = Path(__file__).parents[1]

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


@pytest.mark.parametrize("method", ["dlg", "idlg", "wdlg"])
def test_attack_prints_one_object_with_the_promised_keys(method, digits):
    result = result_of(*ATTACK, "--index", 3, "--method", method)
    assert set(result) == KEYS
    assert result["label_true"] == digits.labels[3]
    assert result["evaluations"] <= 40


@pytest.mark.parametrize("method", ["lm", "exact"])
def test_the_methods_beyond_the_paper_bring_the_picture_itself(method, digits, tmp_path, monkeypatch):
    draw, starts = figures.single_attack, []
    monkeypatch.setattr(
        figures,
        "single_attack",
        lambda *outcome, start: starts.append(start) or draw(*outcome, start=start),
    )
    target = tmp_path / "leak.png"
    new_user = ("attack", "--dataset", "digits", "--index", 3, "--method", method)
    result = result_of(*new_user, "--figure", target)
    assert set(result) == KEYS
    assert result["label_recovered"] == result["label_true"] == digits.labels[3]
    assert result["mse"] < 1e-9
    assert result["status"] == {"lm": "stalled", "exact": "converged"}[method]
    with Image.open(target) as picture:
        assert picture.format == "PNG"
    assert (starts[0] is None) == (method == "exact")
    answer = run(*new_user)
    assert answer.exit_code == 0
    assert answer.stdout.startswith({"lm": "LM on digits", "exact": "exact on digits"}[method])
    assert "4 was recovered as 4" in answer.stdout


def test_the_closed_form_is_unsure_of_a_gradient_with_a_defence():
    result = result_of(*ATTACK[:3], "--method", "exact", "--defence", "noise,level=0.001")
    assert result["status"] == "unsure"
    assert result["relative_error"] == pytest.approx(0.001, rel=0.1)
    assert 1e-9 < result["mse"] < 1e-4


def test_levenberg_marquardt_keeps_to_the_evaluations_that_it_is_told():
    # The first matrix and step of 64 variables take more.
    result = result_of(*ATTACK, "--method", "lm")
    assert (result["status"], result["evaluations"]) == ("budget_spent", 1)


def test_each_option_reaches_the_attack(monkeypatch):
    run_with = []

    def stop(attack, *_, **__):
        run_with.append(attack)
        raise InputError("that is enough.")

    monkeypatch.setattr("wdlg.attacks.run.reconstruct", stop)
    start = ("attack", "--dataset", "digits", "--method")
    run(*start, "idlg", "--first-loss", 8, "--learning-rate", 0.5, "--evaluations", 7)
    run(*start, "wdlg")
    run(*start, "lm")
    run(*start, "exact")
    told = replace(IDLG, first_loss=8.0, evaluations=7, optimizer=replace(IDLG.optimizer, learning_rate=0.5))
    assert run_with == [told, replace(WDLG, evaluations=2400), LM, Exact()]


def test_the_same_seed_gives_the_same_numbers():
    first, second, other = (
        result_of(*ATTACK, "--method", "idlg", "--seed", seed) | {"seconds": 0} for seed in (5, 5, 6)
    )
    assert first == second
    assert first["mse"] != other["mse"]


def test_attack_says_in_words_what_it_did():
    answer = run(*ATTACK, "--method", "idlg", "--evaluations", 400)
    assert answer.exit_code == 0
    for word in ("iDLG on digits", "label", "status", "gradient evaluations", "PSNR"):
        assert word in answer.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_any_work():
    answer = run(*ATTACK, "--method", "idlg", "--device", "cuda")
    assert answer.exit_code == 2
    assert re.fullmatch(
        r"wdlg: --device is 'cuda', but torch \S+ finds no CUDA devices here: take cpu, .*\n", answer.stderr
    )


@pytest.mark.parametrize("device", ["gpu", "meta", ""])
def test_a_device_of_another_kind_is_refused(device):
    answer = run(*ATTACK, "--method", "idlg", "--device", device)
    assert answer.exit_code == 2
    assert answer.stderr == f"wdlg: --device is {device!r}, but must be cpu, cuda, or cuda:1 and so on.\n"


def test_attack_saves_a_figure(tmp_path):
    target = tmp_path / "leak.png"
    answer = run(*ATTACK, "--method", "idlg", "--figure", target)
    assert answer.exit_code == 0
    with Image.open(target) as picture:
        assert picture.format == "PNG"
    assert list(tmp_path.iterdir()) == [target]


def test_a_figure_that_cannot_be_written_costs_neither_the_result_nor_the_one_that_is_there(
    tmp_path, monkeypatch
):
    target = tmp_path / "leak.png"
    target.write_bytes(b"the figure of yesterday")

    def full(figure, path, **settings):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    answer = run(*ATTACK, "--method", "idlg", "--figure", target, "--json")
    assert answer.exit_code == 2
    assert set(json.loads(answer.stdout)) == KEYS
    assert answer.stderr.startswith("wdlg: figure is ")
    assert answer.stderr.endswith("(No space left on device).\n")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the figure of yesterday"]


def test_the_recovered_image_alone_is_saved_pixel_for_pixel(tmp_path):
    from PIL import Image

    answer = run(
        "attack", "--dataset", "digits", "--index", 3, "--method", "exact", "--save", tmp_path / "a.png"
    )
    assert answer.exit_code == 0, answer.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    saved = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(saved, data.load("digits").images[3, ..., 0])


def test_a_sample_file_of_one_s_own_is_attacked(tmp_path):
    digits = data.load("digits")
    own = replace(
        digits,
        name="own",
        images=digits.images[:2, :, :7],
        labels=np.array([0, 2]),
        class_names=(),
        num_classes=3,
        split=digits.split[:2],
        source=digits.source[:2],
    )
    data.write_sample(own, tmp_path / "own.npz")
    answer = run(
        "attack", "--dataset", tmp_path / "own.npz", "--index", 1, "--method", "lm", "--json",
        "--figure", tmp_path / "a.png",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert (told["label_true"], told["label_recovered"]) == (2, 2)
    assert told["mse"] < 1e-9


def test_a_folder_in_the_figures_place_is_refused_before_the_attack(tmp_path, monkeypatch):
    (tmp_path / "leak.png").mkdir()
    monkeypatch.setattr("wdlg.attacks.run.reconstruct", None)
    answer = run(*ATTACK, "--method", "idlg", "--figure", tmp_path / "leak.png")
    assert answer.exit_code == 2
    assert "leak.png', but must be a file that ends in .png" in answer.stderr


def test_attack_takes_a_picture_of_ones_own(tmp_path, digits):
    path = tmp_path / "mine.png"
    Image.fromarray(digits.images[3, :, :, 0]).save(path)
    mine = result_of(*ATTACK, "--method", "idlg", "--image", path, "--label", int(digits.labels[3]))
    listed = result_of(*ATTACK, "--method", "idlg", "--index", 3)
    assert mine["index"] is None
    assert mine["mse"] == listed["mse"]


def test_labels_compares_both_rules():
    result = result_of("labels", "--dataset", "digits", "--images", 20)
    assert set(result["rules"]) == {"bias_sign", "row_sum"}
    for rule in result["rules"].values():
        assert {"accuracy", "undecided", "steps", "seconds"} <= set(rule)
        assert rule["accuracy"] == 1
    assert result["rules"]["bias_sign"]["steps"] == 10
    text = run("labels", "--dataset", "digits", "--images", 5, "--activation", "tanh").stdout
    assert "bias_sign  100.00 % right" in text


def test_attack_and_labels_take_a_defence():
    plain = result_of(*ATTACK, "--method", "idlg")
    result = result_of(*ATTACK, "--method", "idlg", "--defence", "noise,level=0.5")
    assert set(result) == KEYS | {"defence", "relative_error", "cosine"}
    assert result["defence"] == "noise,level=0.5"
    assert 0.4 < result["relative_error"] < 0.6
    assert result["loss"] > plain["loss"]
    assert "relative error" in run(*ATTACK, "--method", "idlg", "--defence", "pruning,share=0.9").stdout
    rules = result_of("labels", "--dataset", "digits", "--images", 10, "--defence", "noise,level=1")["rules"]
    assert set(rules) == {"bias_sign", "bias_min", "row_sum"}
    assert rules["bias_sign"]["accuracy"] < rules["row_sum"]["accuracy"]


def test_data_list_tells_embedded_present_and_missing(tmp_path, digits):
    few = data.Sample(
        "mnist", np.zeros((4, 28, 28, 1), np.uint8), np.arange(4), (), 10, np.full(4, "test"), np.full(4, "")
    )
    data.write_sample(few, tmp_path / "mnist.npz")
    rows = {row["name"]: row for row in result_of("data", "list", "--data-dir", tmp_path)["datasets"]}
    assert set(rows) == set(data.CATALOGUE)
    assert rows["digits"]["embedded"]
    assert rows["mnist"]["present"]
    assert not rows["svhn"]["present"]
    text = run("data", "list", "--data-dir", tmp_path).stdout
    assert "wdlg data fetch fashion_mnist svhn cifar100 lfw" in text


def test_data_list_tells_what_is_wrong_with_a_file_that_is_no_sample_file(tmp_path):
    (tmp_path / "svhn.npz").touch()
    rows = {row["name"]: row for row in result_of("data", "list", "--data-dir", tmp_path)["datasets"]}
    assert not rows["svhn"]["present"]
    assert rows["svhn"]["problem"].startswith(f"sample file {tmp_path / 'svhn.npz'} cannot be read")
    assert {row["problem"] for name, row in rows.items() if name != "svhn"} == {None}
    text = run("data", "list", "--data-dir", tmp_path).stdout
    assert re.search(r"^svhn +unreadable ", text, re.MULTILINE)
    assert rows["svhn"]["problem"] in text
    assert "wdlg data fetch mnist fashion_mnist svhn cifar100 lfw" in text


def test_data_fetch_goes_on_after_a_failure_and_tells_all_of_them(tmp_path, monkeypatch):
    def fetch(name, folder, **settings):
        if name in ("mnist", "lfw"):
            raise InputError(f"dataset {name} could not be fetched.")
        return folder / f"{name}.npz"

    monkeypatch.setattr(data, "fetch", fetch)
    answer = run("data", "fetch", "--data-dir", tmp_path)
    assert answer.exit_code == 2
    assert [line.split(":")[0] for line in answer.stdout.splitlines()] == [
        "fashion_mnist",
        "svhn",
        "cifar100",
    ]
    assert answer.stderr == (
        "wdlg: dataset mnist could not be fetched.\nwdlg: dataset lfw could not be fetched.\n"
    )
    once = run("data", "fetch", "svhn", "svhn", "--data-dir", tmp_path)
    assert once.exit_code == 0
    assert once.stdout == f"svhn: {tmp_path / 'svhn.npz'}\n"


def test_wdlg_data_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WDLG_DATA", str(tmp_path))
    assert str(tmp_path) in run("data", "list").stdout


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


def test_a_picture_of_another_size_is_refused_with_both_sizes(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (20, 10)).save(path)
    answer = run(*ATTACK, "--method", "idlg", "--image", path, "--label", 1)
    assert answer.exit_code == 2
    assert "20 x 10 pixels, but the network takes 8 x 8" in answer.stderr


def test_book_outside_a_checkout_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run("book")
    assert answer.exit_code == 2
    assert "must be in a checkout" in answer.stderr


@pytest.fixture
def study_file(tmp_path):
    """A study of two cells, and the folder for its records."""
    parts = {"main": {**CONTENT["parts"]["main"], "networks": 1, "evaluations": 10}}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "parts": parts}))
    return path, tmp_path / "records"


def test_a_study_is_run_shown_audited_and_judged(study_file):
    path, store = study_file
    empty = json.loads(run("study", "status", path, "--store", store, "--json").stdout)
    assert [group["done"] for group in empty["groups"]] == [0, 0]
    answer = run("study", "run", path, "--store", store, "--processes", 1)
    assert answer.exit_code == 0, answer.output
    full = json.loads(run("study", "status", path, "--store", store, "--json").stdout)
    assert [(group["done"], group["seconds_left"]) for group in full["groups"]] == [(1, 0), (1, 0)]
    assert "1/1" in run("study", "status", path, "--store", store).stdout
    audit = run("study", "audit", path, "--store", store, "--attacks", 2, "--seed", 0)
    assert audit.exit_code == 0
    assert "the records stand" in audit.stdout
    arguments = ("study", "audit", path, "--store", store, "--attacks", 1, "--seed", 4, "--json")
    report = json.loads(run(*arguments).stdout)
    assert (report["study"], report["seed"], report["passed"]) == ("small", 4, True)
    assert report["finished"].endswith("+00:00")
    assert report["audited_by"]["wdlg"]
    assert len(report["findings"]) == 1
    claims = json.loads(run("study", "report", path, "--store", store, "--json").stdout)
    assert {"id", "claim", "verdict", "condition", "numbers", "interval"} <= set(claims[0])
    assert claims[0]["claim"] in run("study", "report", path, "--store", store).stdout


def test_a_study_is_not_begun_on_a_sample_file_that_cannot_be_read(tmp_path):
    parts = {"main": {**CONTENT["parts"]["main"], "datasets": ["digits", "svhn"]}}
    path, store = tmp_path / "small.yaml", tmp_path / "records"
    path.write_text(yaml.safe_dump({**CONTENT, "parts": parts}))
    (tmp_path / "svhn.npz").write_bytes(b"half a file")
    answer = run("study", "run", path, "--store", store, "--processes", 1, "--data-dir", tmp_path)
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"wdlg: sample file {tmp_path / 'svhn.npz'} cannot be read")
    assert not list(store.rglob("*.parquet"))


def test_an_audit_of_spoiled_records_fails_in_words(study_file):
    path, store = study_file
    run("study", "run", path, "--store", store, "--processes", 1)
    victim = next(store.rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-30])
    answer = run("study", "audit", path, "--store", store, "--attacks", 1)
    assert answer.exit_code == 1
    assert "cannot be read" in answer.stdout
    assert "the records do not stand" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nothing.yaml"), "STUDY is 'nothing.yaml'"),
        (("run", "{study}", "--part", "mian"), "--part is 'mian', but must be one of main"),
        (("run", "{study}", "--processes", "0"), "processes is 0"),
        (("audit", "{study}", "--attacks", "0"), "--attacks is 0"),
        (("audit", "{study}"), "must hold attacks of the study"),
    ],
)
def test_a_mistake_with_a_study_is_one_sentence(study_file, arguments, message):
    path, store = study_file
    arguments = [one.replace("{study}", str(path)) for one in arguments]
    answer = run("study", *arguments, "--store", store)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not store.exists()


def refusal(*arguments):
    """The sentence of a study command that is refused."""
    answer = run("study", *arguments)
    assert answer.exit_code == 2, answer.output
    assert answer.stdout == ""
    assert answer.stderr.startswith("wdlg: ")
    assert answer.stderr.count("\n") == 1
    return answer.stderr


@pytest.mark.parametrize("command", ["report", "audit"])
@pytest.mark.parametrize("empty", [False, True], ids=["no folder", "an empty folder"])
def test_without_records_nothing_is_judged(study_file, command, empty):
    path, store = study_file
    if empty:
        store.mkdir()
    assert f"--store is '{store}', but must hold" in refusal(command, path, "--store", store)


@pytest.mark.parametrize("command", ["run", "status", "audit", "report"])
def test_a_folder_of_other_studies_is_refused_and_nothing_is_moved(study_file, tmp_path, command):
    path, _ = study_file
    for name in ("paper", "readings"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "network-000.parquet").write_text("of another study")
    assert "it holds other files" in refusal(command, path, "--store", tmp_path / "results")
    assert len(list((tmp_path / "results").rglob("*.parquet"))) == 2
    paper = ROOT / "results" / "paper"
    assert "the study 'paper' and not of 'small'" in refusal(command, path, "--store", paper)


@pytest.mark.parametrize("command", ["run", "status", "audit", "report"])
def test_a_store_that_is_a_file_is_refused(study_file, command):
    path, store = study_file
    store.write_text("a file")
    assert "must be a folder" in refusal(command, path, "--store", store)
    assert store.read_text() == "a file"


def test_a_foreign_file_is_refused_without_printing_it(tmp_path):
    for content in (b"word " * 10**5, bytes(range(256)) * 100):
        (tmp_path / "study.yaml").write_bytes(content)
        assert len(refusal("report", tmp_path / "study.yaml")) < 400 + len(str(tmp_path))


def shipped(tmp_path, monkeypatch):
    """The project's studies and one part of its records, as a wheel brings them along."""
    home = tmp_path / "site-packages" / "wdlg" / "shipped"
    shutil.copytree(ROOT / "studies", home / "studies")
    shutil.copytree(ROOT / "results" / "paper" / "labels", home / "results" / "paper" / "labels")
    shutil.copy(ROOT / "results" / "paper" / "store.json", home / "results" / "paper")
    monkeypatch.setattr(project, "SHIPPED", home)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


def test_outside_a_checkout_a_study_of_the_project_has_the_records_that_came_with_it(tmp_path, monkeypatch):
    home = shipped(tmp_path, monkeypatch)
    for named in ("paper", home / "studies" / "paper.yaml"):
        claims = {claim["id"]: claim for claim in json.loads(run("study", "report", named, "--json").stdout)}
        assert claims["label-cost"]["verdict"] != "undecided"
    # A study of the reader's own has no other's records, whatever its name.
    shutil.copy(home / "studies" / "paper.yaml", "mine.yaml")
    assert "'results/paper', but must hold records" in refusal("report", "mine.yaml")
    # What the reader has computed comes first, and what is to be computed goes to the working folder.
    Path("results/paper").mkdir(parents=True)
    assert "'results/paper', but must hold records" in refusal("report", "paper")


def test_from_anywhere_an_editable_installation_has_the_records_of_its_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = ROOT / "studies" / "paper.yaml"
    assert project.study_file("paper") == file
    assert project.records_beside(file, "paper") == ROOT / "results" / "paper"
    (tmp_path / "results" / "paper").mkdir(parents=True)
    assert project.records_beside(tmp_path / "studies" / "paper.yaml", "paper") is None


@pytest.mark.parametrize("name", ["papre", "x" * 300, "../paper"])
def test_an_unknown_study_is_refused(name):
    assert f"STUDY is {name!r}, but must be a readable YAML file" in refusal("report", name)


def test_a_store_with_a_name_that_no_folder_can_have_is_refused(study_file):
    assert "cannot be read (File name too long)" in refusal("run", study_file[0], "--store", "x" * 300)
