"""Where Ctrl-C goes while several threads run: always to the one that reads lines."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# A signal that comes just before a wait begins does not end that wait: this is how long it
# may go unnoticed.
_SLICE_S = 0.2
# After this the finalizer that ignored a Ctrl-C has come to its end. Arbitrary.
_AGAIN_S = 0.01


@contextmanager
def for_others() -> Iterator[None]:
    """Give the threads that are started in here no Ctrl-C.

    One that another thread takes, as after a stop of the whole process, does not wake the
    main thread from what it waits for.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # In here: a Ctrl-C that came just before is raised by this, when it has blocked them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def remembered() -> Iterator[list[int]]:
    """Note each Ctrl-C in here instead of raising it.

    Between two lines an event loop is taken down, whose finalizers would swallow it.
    """
    presses: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: presses.append(number))
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def repeated() -> Iterator[None]:
    """Press Ctrl-C again, for the thread that this is in, where a finalizer ignored it."""
    reader, before = threading.get_ident(), sys.unraisablehook

    def note(ignored: "sys.UnraisableHookArgs") -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            # Not here: what is raised in here is ignored, too.
            timer = threading.Timer(_AGAIN_S, signal.pthread_kill, (reader, signal.SIGINT))
            timer.daemon = True
            with for_others():
                timer.start()
        else:
            before(ignored)

    sys.unraisablehook = note
    try:
        yield
    finally:
        sys.unraisablehook = before


def sleep(seconds: float) -> None:
    """Wait, and notice a Ctrl-C whenever it came."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _SLICE_S))
