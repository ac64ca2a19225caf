"""However a command ends, it says so in a sentence and an exit code; only our own errors have a traceback."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from wdlg.cli import main
from wdlg.cli.options import PoliteGroup
from wdlg.errors import InputError


def end_with(error):
    """Run a command that raises an error."""

    @click.group(cls=PoliteGroup)
    def program():
        """A program like ours."""

    @program.command()
    def fail():
        raise error

    return CliRunner().invoke(program, ["fail"])


ENDINGS = {
    "a mistake": (InputError("size is 0, but must be 1."), 2, "size is 0, but must be 1."),
    "Ctrl-C": (KeyboardInterrupt(), 130, "stopped."),
    "no memory": (MemoryError(), 2, "this asks for more memory than there is; ask for less."),
    "no memory of a GPU": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        2,
        "this asks for more memory than there is; ask for less.",
    ),
    "a full disk": (
        OSError(28, "No space left on device"),
        2,
        "a file or standard output cannot be read or written (No space left on device).",
    ),
    "a file that one may not read": (
        PermissionError(13, "Permission denied", "a.txt"),
        2,
        "'a.txt' cannot be read or written (Permission denied).",
    ),
}


@pytest.mark.parametrize(("error", "code", "sentence"), ENDINGS.values(), ids=ENDINGS)
def test_what_a_user_can_do_something_about_is_one_sentence_and_an_exit_code(error, code, sentence):
    answer = end_with(error)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (code, "", f"wdlg: {sentence}\n")


def test_memory_that_torch_cannot_have_is_told_in_the_same_sentence():
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(10**15)
    assert end_with(refusal.value).stderr == "wdlg: this asks for more memory than there is; ask for less.\n"


def test_an_error_of_this_program_keeps_its_traceback():
    error = RuntimeError("shapes differ")
    assert end_with(error).exception is error


PROGRAM = textwrap.dedent("""
    import sys, pathlib, click
    from wdlg.cli.options import PoliteGroup

    @click.group(cls=PoliteGroup)
    def program():
        pass

    @program.command()
    def work():
        pathlib.Path("begun").touch()
        sys.stderr.isatty()
        for number in range(5):
            click.echo("line" * 1000)

    program(prog_name="wdlg")
""")


def run(redirection, folder, argument, *, stdout=subprocess.DEVNULL):
    """Exit code and messages of the program, its streams redirected as a shell would."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -c "$1" "$2" {redirection}', sys.executable, PROGRAM, argument],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@needs_full_device
@pytest.mark.parametrize("argument", ["work", "--help"])
def test_a_full_standard_output_is_told_once(argument, tmp_path):
    code, told = run(">/dev/full", tmp_path, argument)
    assert code == 2
    assert told == "wdlg: a file or standard output cannot be read or written (No space left on device).\n"


@pytest.mark.parametrize("argument", ["work", "--help"])
def test_a_closed_standard_output_is_told_before_the_work_begins(argument, tmp_path):
    code, told = run(">&-", tmp_path, argument)
    assert (code, told) == (2, "wdlg: standard output is closed, but must be open for the result.\n")
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("argument", ["work", "--help"])
def test_a_reader_that_has_seen_enough_is_told_nothing(argument, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert run("", tmp_path, argument, stdout=writing) == (141, "")
    finally:
        os.close(writing)


def test_who_closes_standard_error_gets_the_result_all_the_same(tmp_path):
    assert run("2>&-", tmp_path, "work") == (0, "")
    assert (tmp_path / "begun").exists()


@needs_full_device
def test_where_nothing_can_be_said_the_exit_code_still_tells_of_a_mistake(tmp_path):
    assert run(">/dev/full 2>/dev/full", tmp_path, "work") == (2, "")


@needs_full_device
@pytest.mark.parametrize("argument", ["wrok", "work --no-such-option"])
def test_a_usage_error_that_cannot_be_told_is_a_mistake_all_the_same(argument, tmp_path):
    code, _ = run("2>/dev/full", tmp_path, argument)
    assert code == 2
    assert not (tmp_path / "begun").exists()


def test_wdlg_itself_ends_like_this():
    assert isinstance(main, PoliteGroup)
