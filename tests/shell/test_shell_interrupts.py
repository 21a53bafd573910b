"""Ctrl-C reaches the thread that reads lines, and no other."""

import signal
import threading
from contextlib import suppress

import pytest

from mbctl.shell.interrupts import for_others, remembered, repeated, sleep


def _signals_of_a_new_thread() -> set[int]:
    blocked: list[set[int]] = []
    thread = threading.Thread(
        target=lambda: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    )
    thread.start()
    thread.join()
    return blocked[0]


def test_thread_of_the_shell_takes_no_ctrl_c_from_the_one_that_reads_lines() -> None:
    with for_others():
        assert signal.SIGINT in _signals_of_a_new_thread()
    assert signal.SIGINT not in _signals_of_a_new_thread()


def test_ctrl_c_that_is_remembered_is_not_raised() -> None:
    with remembered() as presses:
        signal.raise_signal(signal.SIGINT)
    assert presses == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_a_finalizer_ignores_is_pressed_again() -> None:
    class Ignoring:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def wait() -> None:
        Ignoring()
        sleep(60)

    with repeated(), pytest.raises(KeyboardInterrupt):
        wait()


def test_ctrl_c_at_the_wrong_moment_does_not_stay_blocked() -> None:
    reader, raised, is_armed = threading.get_ident(), 0, False

    def press(_number: int, _frame: object) -> None:
        nonlocal raised, is_armed
        if is_armed:
            is_armed, raised = False, raised + 1
            raise KeyboardInterrupt

    def press_often() -> None:
        while not ended.wait(0.0001):
            signal.pthread_kill(reader, signal.SIGINT)

    ended = threading.Event()
    presser = threading.Thread(target=press_often)
    before = signal.signal(signal.SIGINT, press)
    presser.start()
    try:
        while raised < 100:
            with suppress(KeyboardInterrupt):
                is_armed = True
                with for_others():
                    pass
                is_armed = False
            assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        is_armed = False
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        ended.set()
        presser.join()
        signal.signal(signal.SIGINT, before)
