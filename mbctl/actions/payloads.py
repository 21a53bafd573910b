"""How a payload looks to people: JSON in colours and folded, binary as hex. Pure.

All of it is safe to show: what could steer a terminal is escaped before it is painted.
"""

import re

import msgspec

from mbctl.actions import text

FOLDED_LINES_MAX = 40
"""Lines of one payload that are shown unless more is asked for; about a screen and a half."""

_HEX_BYTES = 16

# What makes a payload look like text with a few strange bytes rather than binary.
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t\n\r"
_PRINTABLE_SHARE = 0.7

_KEY, _STRING, _NUMBER, _WORD, _RESET = (
    "\x1b[34m",
    "\x1b[32m",
    "\x1b[36m",
    "\x1b[35m",
    "\x1b[0m",
)
_JSON_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*"(?=\s*:))'
    r'|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>-?[0-9][0-9.eE+-]*)"
    r"|(?P<word>true|false|null)\b"
)
_COLOURS = {"key": _KEY, "string": _STRING, "number": _NUMBER, "word": _WORD}


def is_binary(payload: bytes) -> bool:
    """Whether ``payload`` is neither UTF-8 nor text with a few other bytes in it."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        printable = len(payload) - len(payload.translate(None, _PRINTABLE))
        return printable < _PRINTABLE_SHARE * len(payload)
    return False


def one_line(payload: bytes, length_max: int | None = None) -> str:
    """A payload as one line of safe text; binary as hexadecimal digits after ``hex:``."""
    if is_binary(payload):
        shown = f"hex:{payload.hex() if length_max is None else payload[:length_max].hex()}"
        left_out = 0 if length_max is None else len(payload) - length_max
        return f"{shown}…(+{text.counted(left_out, 'byte')})" if left_out > 0 else shown
    shown = text.display(payload)
    return shown if length_max is None else text.clip(shown, length_max)


def looks_like_json(payload: bytes) -> bool:
    """Whether a payload may be an object or an array, at a glance."""
    return payload[:1] in (b"{", b"[") and payload[-1:] in (b"}", b"]")


def json_tokens(shown: str) -> list[tuple[str, str]]:
    """``shown`` in parts, each with what it is in JSON: key, string, number, word, or nothing."""
    parts: list[tuple[str, str]] = []
    position = 0
    for found in _JSON_TOKEN.finditer(shown):
        if found.start() > position:
            parts.append(("", shown[position : found.start()]))
        parts.append((found.lastgroup or "", found[0]))
        position = found.end()
    if position < len(shown):
        parts.append(("", shown[position:]))
    return parts


def paint_json(shown: str) -> str:
    """``shown``, which is escaped, with the colours of JSON."""
    return "".join(
        [f"{_COLOURS[kind]}{part}{_RESET}" if kind else part for kind, part in json_tokens(shown)]
    )


def lines_of(
    payload: bytes, *, width: int, lines_max: int | None = None, length_max: int | None = None
) -> list[str]:
    """A payload on as many lines as it needs, with a last one that counts what is left out.

    A line that is longer than ``length_max`` is cut, and says so.
    """
    if is_binary(payload):
        return hex_lines(payload, lines_max=lines_max)
    lines = _json_lines(payload, width) if looks_like_json(payload) else None
    if lines is None:
        lines = payload.decode("utf-8", "backslashreplace").split("\n")
    shown = [text.escape(line) for line in lines[:lines_max]]
    if length_max is not None:
        shown = [text.clip(line, length_max) for line in shown]
    left = len(lines) - len(shown)
    return [*shown, f"…(+{text.counted(left, 'line')})"] if left else shown


def hex_lines(payload: bytes, *, lines_max: int | None = None) -> list[str]:
    """Offset, bytes and characters of a payload, sixteen bytes a line."""
    shown = payload if lines_max is None else payload[: lines_max * _HEX_BYTES]
    lines = []
    for position in range(0, len(shown), _HEX_BYTES):
        part = shown[position : position + _HEX_BYTES]
        digits = f"{part[:8].hex(' '):23}  {part[8:].hex(' '):23}"
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{position:08x}  {digits}  |{letters}|")
    left = len(payload) - len(shown)
    return [*lines, f"…(+{text.counted(left, 'byte')})"] if left else lines


def _json_lines(payload: bytes, width: int) -> list[str] | None:
    """The lines of JSON, one if it fits; None if it is none."""
    try:
        lines = msgspec.json.format(payload, indent=2).decode().split("\n")
        return _folded(lines, width)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _folded(lines: list[str], width: int) -> list[str]:
    """Lines of JSON, of which each object and array that fits on one line is on one."""
    folded: list[str] = []
    begins: list[int] = []
    for line in lines:
        folded.append(line)
        written = line.strip()
        # A string ends with a quote, so this is a bracket that opens.
        if written[-1:] in ("{", "["):
            begins.append(len(folded) - 1)
        elif written[:1] in ("}", "]"):
            begin = begins.pop()
            # More lines than columns cannot fit.
            if len(folded) - begin <= width:
                inner = " ".join([part.strip() for part in folded[begin + 1 : -1]])
                joined = f"{folded[begin]}{inner}{written}"
                if len(joined) <= width:
                    folded[begin:] = [joined]
    return folded
