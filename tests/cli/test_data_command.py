"""`wdlg data`: what is there, what is missing, what cannot be read, and what was fetched."""

import re

import numpy as np
from commands import result_of, run

from wdlg import data
from wdlg.errors import InputError


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
