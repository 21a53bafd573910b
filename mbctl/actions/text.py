"""Turn values into text that is safe and pleasant to read, and text into values. Pure.

What other people stored (payloads, keys, headers) must never steer a terminal, so
everything that is shown goes through ``escape``. Exact forms are ``payload_text`` and
the raw bytes themselves.
"""

import time
from binascii import b2a_base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from mbctl.errors import InvalidArgument, InvalidName
from mbctl.model import NS_PER_S, SubscriptionInfo, check_name

Encoding = Literal["utf-8", "base64"]

_SPACES = frozenset("\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_FACTORS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _FACTORS |= {
        _letter: 1024**_power,
        f"{_letter}IB": 1024**_power,
        f"{_letter}B": 1000**_power,
    }
# What every number of the protocol and of the files fits below.
_SIZE_MAX = 2**63 - 1


def escape(text: str) -> str:
    r"""Show every character that a terminal could act on or hide, as ``\x1b`` or ``\u202e``.

    Those are the C0 and C1 controls with DEL, line separators, bidirectional and other
    invisible format marks, lone surrogates, and what Unicode has not assigned. Ordinary
    backslashes stay as they are: the text is for reading, not for parsing.
    """
    # One pass in C settles nearly every text.
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() or c in _SPACES else _visible(c) for c in text])


def _visible(character: str) -> str:
    short = _SHORT.get(character)
    if short is not None:
        return short
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def display(payload: bytes) -> str:
    r"""A payload or key as one line of safe text; bytes that are not UTF-8 show as ``\xff``."""
    return escape(payload.decode("utf-8", "backslashreplace"))


def clip(text: str, length_max: int) -> str:
    """``text``, or its beginning and how many characters are left out."""
    if len(text) <= length_max:
        return text
    return f"{text[:length_max]}…(+{count(len(text) - length_max)} characters)"


def payload_text(payload: bytes) -> tuple[str, Encoding]:
    """``payload`` as text that JSON can carry exactly, and how to read it back."""
    try:
        return payload.decode(), "utf-8"
    except UnicodeDecodeError:
        return b2a_base64(payload, newline=False).decode("ascii"), "base64"


def headers_text(headers: Mapping[str, str]) -> str:
    """Headers as ``name=value`` pairs on one line of safe text."""
    return escape(" ".join(f"{name}={value}" for name, value in headers.items()))


# The messages of one send share their time.
@lru_cache(maxsize=16)
def rfc3339(ns: int) -> str:
    """A time in nanoseconds since 1970 as RFC 3339 in UTC, with all nine digits."""
    seconds, fraction = divmod(ns, NS_PER_S)
    t = time.gmtime(seconds)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}"
        f"T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{fraction:09d}Z"
    )


def local_time(ns: int, now_ns: int) -> str:
    """A time as the reader's clock shows it, with the date unless that is today."""
    seconds, fraction = divmod(ns, NS_PER_S)
    day, clock = _local(seconds)
    clock = f"{clock}.{fraction // 1_000_000:03d}"
    return clock if day == _local(now_ns // NS_PER_S)[0] else f"{day} {clock}"


@lru_cache(maxsize=16)
def _local(seconds: int) -> tuple[str, str]:
    t = time.localtime(seconds)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}",
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}",
    )


def ago(ns: int | None, now_ns: int) -> str:
    """How long ago something was, or ``never``."""
    return "never" if ns is None else f"{duration((now_ns - ns) / NS_PER_S)} ago"


def count(number: int) -> str:
    """A number with its thousands set apart."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def amount(messages: int | None, batches: int | None, what: str = "") -> str:
    """``2 messages``; where only batches are counted, ``2 batches``. ``what`` stands before."""
    of = f"{what} " if what else ""
    if messages is not None or batches is None:
        return counted(messages or 0, f"{of}message")
    return f"{batches:,} {of}batch" if batches == 1 else f"{batches:,} {of}batches"


def unread(info: SubscriptionInfo) -> str:
    """``2 unread``; where only batches are counted, ``2 batches unread``."""
    if info.unread is not None or info.unread_batches is None:
        return f"{info.unread or 0:,} unread"
    return f"{amount(None, info.unread_batches)} unread"


def size(number: int) -> str:
    """A number of bytes for people: ``11 B``, ``1.5 KiB``."""
    if abs(number) < 1024:
        return f"{number} B"
    value = float(number)
    for unit in _UNITS:
        value /= 1024
        # 1023.95 would be rounded up to four digits.
        if abs(value) < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """A length of time for people, in the unit that leaves it one to three digits."""
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{hours} h" if hours < 72 else f"{round(seconds / 86400)} d"


def parse_size(text: str) -> int:
    """The bytes that ``64M``, ``1.5GiB``, ``10kB`` or ``4096`` means.

    K, M, G, T and P alone and with ``iB`` are powers of 1024; with ``B``, of 1000.

    Raises:
        InvalidArgument: it is none of these, not above 0, or more than any disk has.
    """
    stripped = text.strip()
    number = stripped.rstrip("BbIiKkMmGgTtPp ")
    factor = _FACTORS.get(stripped[len(number) :].strip().upper())
    # The set of characters keeps out "1e5", "nan", "1_000" and digits of other scripts.
    if factor is None or not number or not set(number) <= set("0123456789."):
        raise InvalidArgument(reason=f"{text!r} is not a size such as 4096, 64M or 1.5GiB")
    try:
        value = int(number) * factor if number.isdigit() else int(float(number) * factor)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            reason=f"{text!r} is not a size such as 4096, 64M or 1.5GiB"
        ) from None
    if value <= 0:
        raise InvalidArgument(reason=f"a size must be above 0, not {text!r}")
    if value > _SIZE_MAX:
        raise InvalidArgument(reason=f"{text!r} is not a size below 8 EiB")
    return value


def is_name(name: str) -> bool:
    """Whether a name is one: what completion offers is run or evaluated, whoever the server is."""
    try:
        check_name(name.removeprefix("~"))
    except InvalidName:
        return False
    return True
