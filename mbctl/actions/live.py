"""A picture on the whole terminal that keys change, and the same as lines off a terminal."""

import os
import select
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mbctl.actions.output import Output
from mbctl.actions.samples import Sample, Sampler
from mbctl.actions.top import View, frame
from mbctl.errors import ConnectionFatal, MbctlError, Timeout

if TYPE_CHECKING:
    from mbctl import Admin

# How often keys and the size of the terminal are looked at between two samples.
_TICK_S = 0.1
# Between the two looks that one picture of rates needs.
_FIRST_S = 0.5
_PLAIN_WIDTH = 120
# A picture that is printed once shows all there is.
_PLAIN_HEIGHT = 10_000

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[2K", "\x1b[J"


def can_draw(output: Output) -> bool:
    """Whether there is a terminal on which a picture can change in place, and keys."""
    is_there = output.terminal and sys.stdin is not None and sys.stdin.isatty()
    return is_there and os.environ.get("TERM") not in ("dumb", "unknown", None)


def show_once(admin: "Admin", output: Output, view: View, interval: float) -> None:
    """Look twice, for the rates, and show one picture."""
    sampler = Sampler(admin)
    sampler.take()
    time.sleep(min(interval, _FIRST_S))
    show_sample(output, sampler.take(), view)


def show_lines(admin: "Admin", output: Output, view: View, interval: float) -> None:
    """Show a sample every ``interval`` seconds, until interrupted."""
    sampler = Sampler(admin)
    sampler.take()
    while True:
        time.sleep(interval)
        show_sample(output, sampler.take(), view)


def show_sample(output: Output, sample: Sample, view: View) -> None:
    """Show one sample: a picture to people, else an object on a line."""
    if output.for_people:
        view.color = output.color
        lines = frame(sample, view, width=output.width or _PLAIN_WIDTH, height=_PLAIN_HEIGHT)
        # The last line is about keys, which nobody can press.
        output.write_text("".join([f"{line}\n" for line in lines[:-1]]))
    else:
        shown = Sample(
            sample.time,
            sample.status,
            [line for line in sample.topics if view.shows(line.topic, line.held_by or "")],
            [line for line in sample.subscriptions if view.shows(line.topic, line.subscriber)],
            *(sample.recent_in, sample.recent_out),
        )
        output.write_object(shown.as_row())
    output.flush()


def show_live(admin: "Admin", output: Output, view: View, interval: float) -> None:
    """Draw on the whole terminal until q is pressed."""
    sampler = Sampler(admin)
    sample: Sample | None = None
    due = 0.0
    with _whole_terminal(output):
        while True:
            if time.monotonic() >= due and not view.is_paused:
                due = time.monotonic() + interval
                sample = _try(sampler, view) or sample
            _draw(output, sample, view)
            if not all([view.press(key) for key in _read_keys(_TICK_S)]):
                return


def _try(sampler: Sampler, view: View) -> Sample | None:
    """Look; a server that is gone is said, and asked again the next time."""
    try:
        sample = sampler.take()
    except (ConnectionFatal, Timeout) as error:
        view.trouble = f"{error}; trying again"
        return None
    except MbctlError:
        raise
    view.trouble = ""
    return sample


def _draw(output: Output, sample: Sample | None, view: View) -> None:
    size = shutil.get_terminal_size()
    lines = frame(sample, view, width=size.columns, height=size.lines)
    # The keys stand at the bottom, whatever there is above them.
    blank = max(0, size.lines - len(lines))
    lines = [*lines[:-1], *[""] * blank, lines[-1]][: size.lines]
    # Cleared before it is written: behind a line as wide as the terminal the cursor stands on the
    # last character.
    *others, last = lines
    drawn = "".join(f"{_CLEAR_LINE}{line}\r\n" for line in others)
    output.write_text(f"{_HOME}{drawn}{_CLEAR_REST}{last}")
    output.flush()


@contextmanager
def _whole_terminal(output: Output) -> Iterator[None]:
    """A screen of its own and keys without Enter; all as before when it ends, however."""
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        # Ctrl-C still interrupts.
        tty.setcbreak(keyboard)
        output.write_text(_ENTER)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        output.write_text(_LEAVE)
        output.flush()


def _read_keys(seconds: float) -> str:
    """The keys that come within ``seconds``; those that are more than a character count not.

    Arrows and the like begin with an escape as the key Esc does, which comes alone.
    """
    keyboard = sys.stdin.fileno()
    ready, _, _ = select.select([keyboard], [], [], seconds)
    if not ready:
        return ""
    typed = os.read(keyboard, 64)
    if typed.startswith(b"\x1b") and len(typed) > 1:
        return ""
    return typed.decode("ascii", "ignore")
