r"""The little language of ``--format``: what of a message is written, and how.

    %t topic    %o offset     %k key       %h headers, %h{NAME} one of them
    %p payload  %l its bytes  %d deliveries    %n number of the message, from 1
    %T time     %% a percent sign    \n \t \r \0 \\ \xNN

``%p`` and ``%k`` may say how: ``{str}`` escaped, ``{hex}``, ``{base64}``, ``{json}`` a string
of JSON. ``%T`` takes ``{iso}``, ``{ms}``, ``{ns}`` or what strftime takes, in local time. A
width, as in ``%-10.10t``, pads and cuts.
"""

import re
import time
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

import msgspec

from mbctl.actions import text
from mbctl.errors import InvalidArgument
from mbctl.model import NS_PER_S

if TYPE_CHECKING:
    from mbctl.client.pulled import PulledMessage

    Message = PulledMessage[Any]

_TOKEN = re.compile(
    r"%(?P<width>-?[0-9]{0,4}(?:\.[0-9]{1,6})?)(?P<letter>.)(?:\{(?P<how>[^}]*)\})?"
    r"|\\x(?P<hex>[0-9A-Fa-f]{2})|\\(?P<escape>.)|(?P<literal>[^%\\]+)|(?P<rest>.)",
    re.DOTALL,
)
_ESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "\\": b"\\"}
_BYTES_HOW = ("", "str", "hex", "base64", "json")
_LETTERS = "tokphlTnd"


class _Field(msgspec.Struct, frozen=True):
    """One ``%`` of a template. ``width`` is below 0 to pad on the right."""

    letter: str
    how: str
    width: int
    length_max: int | None


class Format(msgspec.Struct, frozen=True):
    """A template that was read: bytes that stand as they are, and fields."""

    parts: list[bytes | _Field]

    def render(self, message: "Message", number: int, *, safe: bool) -> bytes:
        """What the template makes of the message with this number; ``safe`` for a terminal."""
        return b"".join(
            [
                part if isinstance(part, bytes) else _rendered(part, message, number, safe)
                for part in self.parts
            ]
        )


def parse_format(template: str) -> Format:
    """Read a template.

    Raises:
        InvalidArgument: it has a ``%`` or a backslash that means nothing.
    """
    parts: list[bytes | _Field] = []
    for found in _TOKEN.finditer(template):
        letter, escape, digits = found["letter"], found["escape"], found["hex"]
        if found["literal"] is not None:
            parts.append(found["literal"].encode("utf-8", "surrogateescape"))
        elif digits is not None:
            parts.append(bytes.fromhex(digits))
        elif escape in _ESCAPES:
            parts.append(_ESCAPES[escape])
        elif letter == "%" and found[0] == "%%":
            parts.append(b"%")
        elif letter is not None and letter in _LETTERS:
            parts.append(_field(found))
        else:
            raise InvalidArgument(
                reason=f"{found[0]!r} (column {found.start() + 1}) means nothing in a format;"
                " there are %t %o %k %p %h %l %T %n %d %% and \\n \\t \\r \\0 \\\\ \\xNN"
            )
    return Format(parts)


def _field(found: "re.Match[str]") -> _Field:
    letter, how = found["letter"], found["how"] or ""
    if letter in "pk" and how not in _BYTES_HOW:
        raise InvalidArgument(
            reason=f"{found[0]!r} is none of {{str}}, {{hex}}, {{base64}} and {{json}}"
        )
    if how and letter not in "pkhT":
        raise InvalidArgument(reason=f"%{letter} takes no {{{how}}}")
    width, _, length_max = found["width"].partition(".")
    minus = width.startswith("-")
    wide = int(width.lstrip("-") or 0)
    return _Field(letter, how, -wide if minus else wide, int(length_max) if length_max else None)


def _rendered(field: _Field, message: "Message", number: int, safe: bool) -> bytes:
    value = _value(field, message, number)
    if isinstance(value, bytes):
        if not safe and not field.width and field.length_max is None:
            return value
        value = value.decode("utf-8", "backslashreplace" if safe else "surrogateescape")
    if safe:
        value = text.escape(value)
    if field.length_max is not None:
        value = value[: field.length_max]
    value = value.ljust(-field.width) if field.width < 0 else value.rjust(field.width)
    return value.encode("utf-8", "surrogateescape")


def _value(field: _Field, message: "Message", number: int) -> bytes | str:
    match field.letter:
        case "t":
            return message.topic
        case "o":
            return str(message.offset)
        case "k":
            return _bytes(message.key or b"", field.how)
        case "p":
            return _bytes(message.payload, field.how)
        case "h":
            if field.how:
                return message.headers.get(field.how, "")
            return " ".join(f"{name}={value}" for name, value in message.headers.items())
        case "l":
            return str(len(message.payload))
        case "T":
            return _time(message.timestamp, field.how)
        case "n":
            return str(number)
        case _:
            return str(message.deliveries)


def _bytes(value: bytes, how: str) -> bytes | str:
    match how:
        case "hex":
            return value.hex()
        case "base64":
            return b2a_base64(value, newline=False).decode("ascii")
        case "json":
            return msgspec.json.encode(text.payload_text(value)[0]).decode()
        case "str":
            return text.display(value)
        case _:
            return value


def _time(ns: int, how: str) -> str:
    if how in ("", "iso"):
        return text.rfc3339(ns)
    if how == "ms":
        return str(ns // 1_000_000)
    if how == "ns":
        return str(ns)
    return time.strftime(how, time.localtime(ns // NS_PER_S))
