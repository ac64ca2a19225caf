"""A request to end, by whichever signal, ends a command as Ctrl-C does, with the signal's exit code."""

import signal
import threading

import pytest

from wdlg.interruption import Terminated, exit_code_of_request, terminated_like_interrupted

EACH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)


@EACH
def test_a_request_to_end_is_an_interrupt_and_the_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as caught, terminated_like_interrupted():
        signal.raise_signal(number)
    assert isinstance(caught.value, Terminated)
    assert signal.getsignal(number) is before


@EACH
def test_a_command_exits_with_the_code_of_the_signal(number, capsys):
    with pytest.raises(SystemExit) as caught, exit_code_of_request():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    assert capsys.readouterr().err == "wdlg: stopped.\n"


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup starts a command
    try:
        with terminated_like_interrupted():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_changes():
    def enter():
        with terminated_like_interrupted():
            seen.append(signal.getsignal(signal.SIGTERM))

    before, seen = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
