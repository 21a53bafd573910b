"""A move of a topic as people see it: how far it has got, and what to do when it has ended."""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from mbctl.actions import text
from mbctl.actions.move import Move
from mbctl.actions.output import Output

if TYPE_CHECKING:
    from mbctl.client.moving import PartAdmin

# A send may come at any time, and nobody waits for its copy.
_POLL_S = 0.1
_TELL_S = 1.0
# A file of what is told would be long otherwise.
_TELL_OFF_TERMINAL_S = 10.0


class Following:
    """Whether a move goes on when it has caught up, and until when."""

    def __init__(self, *, is_endless: bool = False, idle_s: float | None = None) -> None:
        self.is_on = is_endless or idle_s is not None
        self._idle_s = idle_s
        self._since = time.monotonic()

    def moved(self) -> None:
        """Note that there was something to move just now."""
        self._since = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether nothing has come for as long as was said."""
        return self._idle_s is not None and time.monotonic() - self._since >= self._idle_s


def move_topic(
    source: "PartAdmin",
    target: "PartAdmin",
    output: Output,
    topic: str,
    *,
    without: Sequence[str] = (),
    following: Following,
) -> None:
    """Move a topic from ``source`` to ``target``, and say what to do next.

    Raises:
        MbctlError: what keeps it from going on. It goes on when it is run again.
    """
    began = time.monotonic()
    with Move(source, target, topic) as move:
        move.begin(without)
        try:
            with _telling(output) as tell:
                _run(move, tell, following)
        except KeyboardInterrupt:
            moved = text.counted(move.moved.messages, "message")
            output.note(f"stopped after {moved}; run this again to go on from there")
            raise
        row = _row(move, source.server, target.server, time.monotonic() - began)
    output.done(row, _sentence(row))
    if not following.is_on:
        for line in _advice(row):
            output.note(line)


def _run(move: Move, tell: "_Line | _SeldomTold", following: Following) -> None:
    """Move what there is, and what comes meanwhile, until it has caught up or ``is_over``."""
    is_told = False
    told_at, told_messages = time.monotonic(), 0
    while True:
        was_some = move.step()
        now = time.monotonic()
        if was_some:
            following.moved()
        if not was_some or now - told_at >= _TELL_S:
            move.acknowledge()
            lag = move.lag()
            rate = (move.moved.messages - told_messages) / max(now - told_at, 0.001)
            if move.moved.messages > told_messages:
                told_at, told_messages = now, move.moved.messages
                tell(_progress(move, lag, rate))
            if was_some:
                continue
            if lag == 0 and not following.is_on:
                return
            if lag == 0 and not is_told:
                is_told = True
                tell.note(_caught_up(move))
            if following.is_over:
                return
            time.sleep(_POLL_S)


def _progress(move: Move, lag: int, rate: float) -> str:
    moved = text.counted(move.moved.messages, "message")
    return f"{moved} of {text.escape(move.topic)} moved, {rate:,.0f}/s, {lag:,} to go"


def _caught_up(move: Move) -> str:
    return (
        f"{text.escape(move.topic)} has caught up: lag 0; now switch its publishers to"
        f" {move.target}, and end this when none of them sends to {move.source} any more"
    )


def _row(move: Move, source: str, target: str, seconds: float) -> dict[str, Any]:
    return {
        "topic": move.topic,
        "from": source,
        "to": target,
        "messages": move.moved.messages,
        "bytes": move.moved.bytes,
        "gone": move.moved.gone,
        "lag": 0,
        "next_offset": move.end,
        "seconds": round(seconds, 3),
    }


def _sentence(row: dict[str, Any]) -> str:
    moved = text.counted(row["messages"], "message")
    gone = f", {text.counted(row['gone'], 'message')} being gone before" if row["gone"] else ""
    topic = text.escape(row["topic"])
    size = text.size(row["bytes"])
    return f"moved {moved} ({size}) of {topic} to {row['to']}{gone}; nothing is left to move"


def _advice(row: dict[str, Any]) -> list[str]:
    topic, source, target = text.escape(row["topic"]), row["from"], row["to"]
    return [
        f"next: let its publishers send to {target}, and run this again for what they sent here"
        " meanwhile;",
        f"let subscribers that read all of it here begin there with --from {row['next_offset']};",
        f"then: mbctl topic delete {topic} -s {source}, and:"
        f" mbctl topic delete {topic}.moving -s {target}",
    ]


def _telling(output: Output) -> "_Line | _SeldomTold":
    """A line on the terminal that changes; off it, one now and then."""
    can_draw = output.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return _Line(output) if can_draw and not output.quiet else _SeldomTold(output)


class _Line:
    """Tells in one line of the terminal, which is gone at the end of the block."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def __call__(self, sentence: str) -> None:
        """Show a sentence in place of the one before, as far as the line has room."""
        columns = os.get_terminal_size(self._output.stderr.fileno()).columns
        self._write(sentence[: columns - 1])

    def note(self, sentence: str) -> None:
        """Show a sentence that stays."""
        self._write("")
        self._output.note(sentence)

    def _write(self, shown: str) -> None:
        self._output.stderr.write(f"\r\x1b[K{shown}")
        self._output.stderr.flush()


class _SeldomTold:
    """Tells off a terminal: in lines, and not too many of them."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._next = time.monotonic() + _TELL_OFF_TERMINAL_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to tidy."""

    def note(self, sentence: str) -> None:
        """Show a sentence in any case."""
        self._output.note(sentence)

    def __call__(self, sentence: str) -> None:
        """Show a line, unless there was one lately."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _TELL_OFF_TERMINAL_S
            self._output.note(sentence)
