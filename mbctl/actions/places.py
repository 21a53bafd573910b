"""Places in a topic, times and lengths of time as people write them. Pure but for the zone."""

import re
import time
from datetime import UTC, datetime

from mbctl.errors import InvalidArgument
from mbctl.model import NS_PER_S, AtTime, Start

PLACES = "new|earliest|OFFSET|TIME"
"""How the place is written in a help."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_AGE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|w)", re.ASCII)
_OFFSET = re.compile(r"[0-9]{1,18}", re.ASCII)
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.([0-9]{1,9}))?)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS_MAX = 2**63 - 1


def parse_place(text: str, now_ns: int | None = None) -> Start:
    """The place that ``new``, ``earliest``, ``42``, ``2h`` or ``2026-01-02T03:04:05Z`` means.

    Raises:
        InvalidArgument: it is none of these.
    """
    word = text.lower()
    if word == "new":
        return "new"
    if word == "earliest":
        return "earliest"
    if _OFFSET.fullmatch(text) is not None:
        return int(text)
    if _AGE.fullmatch(text) is not None:
        now_ns = time.time_ns() if now_ns is None else now_ns
        return AtTime(max(0, now_ns - round(parse_age(text) * NS_PER_S)))
    return AtTime(parse_time(text))


def parse_time(text: str) -> int:
    """The nanoseconds since 1970 of a date, with a time or not; local, unless it has a zone.

    Raises:
        InvalidArgument: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise InvalidArgument(
            reason=f"{text[:60]!r} is not new, earliest, an offset, a time such as"
            " 2026-01-02T03:04:05Z, or how long ago it was, such as 2h"
        )
    day, clock, fraction, zone = found.groups()
    zone = (zone or "").upper().replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(reason=f"there is no time {text!r}") from None
    since = moment - _EPOCH
    ns = (since.days * 86_400 + since.seconds) * NS_PER_S + int((fraction or "").ljust(9, "0"))
    if not 0 <= ns <= _NS_MAX:
        raise InvalidArgument(reason=f"a time is from 1970 to 2262, not {text!r}")
    return ns


def parse_age(text: str) -> float:
    """The seconds that ``250ms``, ``30s``, ``5m``, ``2h``, ``7d`` or ``1w`` means.

    Raises:
        InvalidArgument: it is none of these, or not above 0.
    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(reason=f"{text[:60]!r} is not an age such as 30s, 5m, 2h or 7d")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds <= 0:
        raise InvalidArgument(reason=f"an age must be above 0, not {text!r}")
    return seconds


def age_text(seconds: float) -> str:
    """An age as it is written, in the largest unit that it is a whole number of."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"
