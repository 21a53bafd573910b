"""Where results go and what form they take.

Data goes to stdout and everything else to stderr. The forms:

    auto    a table on a terminal, tab-separated text off it
    table   a table in any case
    json    one value: an array for a list, an object for a thing
    jsonl   one object per line
    raw     each payload as it is and a newline after it; tab-separated for the rest

A value is a ``Mapping`` from the names that JSON shows; ``Column`` says which of them
people see, under what title and how. Values of others are escaped in every form that is
read as text, and never parsed as markup.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TextIO, get_args

import msgspec

from mbctl.actions import text
from mbctl.actions.places import age_text
from mbctl.errors import MbctlError

if TYPE_CHECKING:
    from mbctl.actions.messages import Look, MessageWriter

Form = Literal["auto", "table", "json", "jsonl", "raw"]
Colour = Literal["auto", "always", "never"]
Kind = Literal["text", "number", "count", "size", "time", "ago", "seconds", "age"]
Row = Mapping[str, Any]

FORMS: tuple[Form, ...] = get_args(Form)
COLOURS: tuple[Colour, ...] = get_args(Colour)

TABLE_ROWS_MAX = 500
"""rich takes 0.3 ms for each row of a table; a longer list is plain lines."""

# What is folded into less than this is hard to read. Arbitrary.
_FOLDED_WIDTH_MIN = 12
_GAP = 2

_DIM, _BOLD, _RED, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"


class Column(msgspec.Struct, frozen=True):
    """One named value as people see it; ``kind`` says what its number means.

    A ``count`` has its thousands set apart; a ``number`` names something, as an offset does.
    """

    name: str
    title: str
    kind: Kind = "text"


def told(columns: Sequence[Column], rows: Sequence[Row], *maybe: str) -> list[Column]:
    """The columns, without those of ``maybe`` that no row has anything for."""
    empty = {name for name in maybe if all(row.get(name) is None for row in rows)}
    return [column for column in columns if column.name not in empty]


class Output:
    """The form of all answers of one command or shell, and the streams they go to."""

    def __init__(
        self,
        form: Form = "auto",
        *,
        color: Colour = "auto",
        quiet: bool = False,
        verbose: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.form: Form = form
        self.quiet = quiet
        self.verbose = verbose
        self.stdout: TextIO = stdout if stdout is not None else sys.stdout
        self.stderr: TextIO = stderr if stderr is not None else sys.stderr
        self.terminal = self.stdout.isatty()
        self.color = _wants_color(color, self.stdout)
        self._error_color = _wants_color(color, self.stderr)
        self.is_paging = False
        """Whether a pager has the terminal."""
        self.recent: deque[Any] | None = None
        """The messages shown last, if somebody wants them kept."""

    @property
    def for_people(self) -> bool:
        """Whether answers are laid out for reading rather than for a program."""
        return self.form == "table" or (self.form == "auto" and self.terminal)

    @property
    def as_json(self) -> bool:
        """Whether answers are JSON, as one value or as lines."""
        return self.form in ("json", "jsonl")

    def rows(self, columns: Sequence[Column], rows: Sequence[Row], *, empty: str = "") -> None:
        """Show a list. ``empty`` tells people that there is nothing, on stderr."""
        if self.form == "json":
            self._write_json_array(columns, rows)
        elif self.form == "jsonl":
            self.write(b"".join([_json(_plain_times(columns, row)) + b"\n" for row in rows]))
        elif not self.for_people:
            self.write_text("".join([_tab_line(columns, row) for row in rows]))
        elif not rows:
            self.note(empty)
        else:
            self._write_table(columns, rows)
        self.flush()

    def record(self, columns: Sequence[Column], row: Row) -> None:
        """Show one thing: a line for each of its values, or one object."""
        if self.as_json:
            self.write(_json(_plain_times(columns, row)) + b"\n")
        elif not self.for_people:
            lines = [f"{c.name}\t{_tab_cell(c, row.get(c.name))}\n" for c in columns]
            self.write_text("".join(lines))
        else:
            now_ns = time.time_ns()
            values = [cell(c, row.get(c.name), now_ns) for c in columns]
            lines = self._block([c.title for c in columns], values)
            self.write_text("".join([f"{line}\n" for line in lines[:-1]]))
        self.flush()

    def page(self, lines: Sequence[str]) -> None:
        """Show lines, through a pager if a terminal is too small for them."""
        written = "".join([f"{line}\n" for line in lines])
        if self.terminal:
            from mbctl.actions.pager import show_in_pager

            self.is_paging = True
            try:
                if show_in_pager(written):
                    return
            finally:
                self.is_paging = False
        self.write_text(written)
        self.flush()

    def write_object(self, value: Row) -> None:
        """Put an object of JSON on a line."""
        self.write(_json(value) + b"\n")

    def line(self, columns: Sequence[Column], row: Row) -> None:
        """Show one of many states of the same thing, each on a line; titles follow the values."""
        if self.as_json:
            self.write(_json(_plain_times(columns, row)) + b"\n")
        elif not self.for_people:
            self.write_text(_tab_line(columns, row))
        else:
            now_ns = time.time_ns()
            cells = [f"{cell(c, row.get(c.name), now_ns)}{c.title}" for c in columns]
            self.write_text("  ".join(cells) + "\n")
        self.flush()

    def done(self, row: Row, sentence: str) -> None:
        """Show what an act did: ``sentence`` to people, who may be quiet, else ``row``."""
        if self.as_json:
            self.write(_json(row) + b"\n")
        elif self.quiet:
            return
        elif self.for_people:
            self.write_text(f"{sentence}\n")
        else:
            columns = [Column(name, name) for name in row]
            self.write_text(_tab_line(columns, row))
        self.flush()

    def messages(self, look: "Look | None" = None) -> "MessageWriter":
        """A writer of messages in this form, to be used as a context."""
        from mbctl.actions.messages import PLAIN, MessageWriter

        return MessageWriter(self, look or PLAIN)

    def note(self, sentence: str) -> None:
        """Tell people something that is not data, unless they asked for quiet."""
        if sentence and not self.quiet:
            self._write_error_stream(f"{sentence}\n")

    def detail(self, sentence: str) -> None:
        """Tell people something that only the curious want to know."""
        if self.verbose:
            self.note(self._paint(_DIM, sentence, on=self._error_color))

    def error(self, error: MbctlError, *, place: str = "", hint: str | None = None) -> None:
        """Report ``error`` on one line of stderr, and as JSON below it where that is the form.

        ``place`` stands before it, as ``FILE:LINE``; ``hint`` replaces the error's own.
        """
        self.failure(error.code, error.message, error.hint if hint is None else hint, place=place)

    def failure(self, code: str, message: str, hint: str = "", *, place: str = "") -> None:
        """Report what went wrong, for what is not an ``MbctlError``."""
        label = self._paint(_RED, "error:", on=self._error_color)
        where = f"{place}: " if place else ""
        separator = " " if message.endswith("?") else "; "
        sentence = f"{message}{separator}{hint}" if hint else message
        self._write_error_stream(f"{where}{label} {text.escape(sentence)}\n")
        if self.as_json:
            report = {"error": {"code": code, "message": message, "hint": hint}}
            self._write_error_stream(_json(report).decode() + "\n")

    def write_text(self, written: str) -> None:
        """Put text on stdout as it is; whatever others wrote must be escaped already."""
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        self.write(written.encode(encoding, "backslashreplace"))

    def write(self, data: bytes) -> None:
        """Put bytes on stdout as they are.

        Raises:
            BrokenPipeError: nobody reads any more; maybe only at the next ``flush``.
        """
        buffer = getattr(self.stdout, "buffer", None)
        if buffer is None:
            self.stdout.write(data.decode("utf-8", "backslashreplace"))
            return
        rest = memoryview(data)
        with _stdout_named():
            # Unbuffered streams, as under PYTHONUNBUFFERED, may take a part only.
            while rest:
                rest = rest[buffer.write(rest) :]

    def flush(self) -> None:
        """Return when all that was written has left this process."""
        with _stdout_named():
            self.stdout.flush()

    def dim(self, shown: str) -> str:
        """``shown`` in a colour that steps back, where there is colour."""
        return self._paint(_DIM, shown, on=self.color)

    def bold(self, shown: str) -> str:
        """``shown`` in a colour that stands out, where there is colour."""
        return self._paint(_BOLD, shown, on=self.color)

    def bad(self, shown: str) -> str:
        """``shown`` in the colour of errors, where there is colour."""
        return self._paint(_RED, shown, on=self.color)

    def _paint(self, style: str, shown: str, *, on: bool) -> str:
        return f"{style}{shown}{_RESET}" if on and shown else shown

    def _write_json_array(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        lines = b",\n".join([_json(_plain_times(columns, row)) for row in rows])
        self.write(b"[\n" + lines + b"\n]\n" if rows else b"[]\n")

    def _write_table(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        now_ns = time.time_ns()
        cells = [[cell(c, row.get(c.name), now_ns) for c in columns] for row in rows]
        titles = [column.title for column in columns]
        widths = [max(map(len, values)) for values in zip(titles, *cells, strict=True)]
        if not _fits(columns, widths, self.width):
            self.page([line for row in cells for line in self._block(titles, row)])
        elif len(rows) <= TABLE_ROWS_MAX:
            from mbctl.actions.tables import draw

            drawn = draw(columns, cells, width=self.width, color=self.color)
            self.page(drawn.splitlines())
        else:
            padded = [
                "  ".join([value.ljust(width) for value, width in zip(line, widths, strict=True)])
                for line in (titles, *cells)
            ]
            self.page([line.rstrip() for line in padded])

    def _block(self, titles: Sequence[str], cells: Sequence[str]) -> list[str]:
        """A line for each value, and a blank one."""
        width = max(map(len, titles))
        pairs = zip(titles, cells, strict=True)
        return [*(f"{self.dim(title.ljust(width))}  {value}" for title, value in pairs), ""]

    @property
    def width(self) -> int | None:
        """The columns of the terminal, or None where there is no edge."""
        if not self.terminal:
            return None
        from shutil import get_terminal_size

        return get_terminal_size().columns

    def _write_error_stream(self, written: str) -> None:
        # What cannot be written any more must not hide what else there is to say.
        with suppress(OSError):
            self.stdout.flush()
        with suppress(OSError):
            self.stderr.write(written)
            self.stderr.flush()


@contextmanager
def _stdout_named() -> Iterator[None]:
    """Let an error that comes of writing to stdout say so: the disk that is full is not mbctl's."""
    try:
        yield
    except OSError as error:
        error.filename = "stdout"
        raise


def _fits(columns: Sequence[Column], widths: Sequence[int], width: int | None) -> bool:
    """Whether columns of these widths stand beside each other, texts folded if need be."""
    needed = [
        min(needed, max(_FOLDED_WIDTH_MIN, len(column.title))) if column.kind == "text" else needed
        for column, needed in zip(columns, widths, strict=True)
    ]
    return width is None or sum(needed) + _GAP * (len(needed) - 1) <= width


def cell(column: Column, value: Any, now_ns: int) -> str:
    """One value as people read it, escaped."""
    if value is None:
        return "never" if column.kind == "ago" else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    match column.kind:
        case "count":
            return text.count(value)
        case "size":
            return text.size(value)
        case "time":
            return text.local_time(value, now_ns)
        case "ago":
            return text.ago(value, now_ns)
        case "seconds":
            return text.duration(value)
        case "age":
            return age_text(value)
        case "text" | "number":
            return text.escape(str(value))


def _tab_line(columns: Sequence[Column], row: Row) -> str:
    return "\t".join([_tab_cell(column, row.get(column.name)) for column in columns]) + "\n"


def _tab_cell(column: Column, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if column.kind in ("time", "ago"):
        return text.rfc3339(value)
    return text.escape(str(value))


def _plain_times(columns: Sequence[Column], row: Row) -> Row:
    """``row`` with its times as RFC 3339, which is how JSON shows them."""
    times = [c.name for c in columns if c.kind in ("time", "ago") and row.get(c.name) is not None]
    return {**row, **{name: text.rfc3339(row[name]) for name in times}} if times else row


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _wants_color(color: Colour, stream: TextIO) -> bool:
    if color != "auto":
        return color == "always"
    # NO_COLOR counts when it is set and not empty: https://no-color.org
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
