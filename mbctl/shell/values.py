"""From what was typed to what it means: one conversion for each kind of value.

Each takes the text and raises ValueError, or an error of mbctl.errors, if it is not one.
"""

import re

from mbctl.actions.places import parse_age, parse_place
from mbctl.actions.text import parse_size
from mbctl.model import DELIVERIES_MAX, Start, WhenFull, check_ack_wait

# 18 digits stay below 2**63, which every number of the protocol must.
_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{0,9})?|\.[0-9]{1,9}", re.ASCII)

# Arbitrary: enough to recognise what was typed, short enough to stay on the line.
_SHOWN_MAX = 60


def shown(text: str) -> str:
    """``text`` in quotes for an error message, shortened if it is long."""
    return repr(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "...")


def count(text: str) -> int:
    """A whole number from 1 on."""
    if _WHOLE.fullmatch(text) is None or int(text) == 0:
        raise ValueError(f"{shown(text)} is not a whole number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds from 0 on."""
    if _SECONDS.fullmatch(text) is None:
        raise ValueError(f"{shown(text)} is not a number of seconds")
    return float(text)


def interval(text: str) -> float:
    """A number of seconds between two looks: a tenth at least, so that it stays readable."""
    if seconds(text) < 0.1:
        raise ValueError(f"{shown(text)} is below 0.1 seconds")
    return seconds(text)


def ack_wait(text: str) -> float:
    """A number of seconds that a lease may last."""
    return check_ack_wait(seconds(text))


def start(text: str) -> Start:
    """A place in a topic: new, earliest, an offset or a time."""
    return parse_place(text)


def offset(text: str) -> int:
    """The number of a message."""
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{shown(text)} is not an offset")
    return int(text)


def deliveries(text: str) -> int:
    """How often a message may be delivered."""
    if count(text) > DELIVERIES_MAX:
        raise ValueError(f"{shown(text)} is more than {DELIVERIES_MAX}")
    return count(text)


def age(text: str) -> float:
    """An age in seconds, such as 7d."""
    return parse_age(text)


def when_full(text: str) -> WhenFull:
    """What a send to a full topic does."""
    word = text.lower().replace("_", "-")
    if word == "refuse":
        return "refuse"
    if word == "drop-oldest":
        return "drop_oldest"
    raise ValueError(f"{shown(text)} is not refuse or drop-oldest")


def utf8(text: str) -> bytes:
    """The bytes that were typed or read; those that are not UTF-8 came as surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("there is a character that UTF-8 cannot carry") from None


def size(text: str) -> int:
    """A number of bytes, such as 64M."""
    # What is longer need not even be converted.
    if len(text) > 22:
        raise ValueError(f"{shown(text)} is not a size below 8 EiB")
    return parse_size(text)


def hexadecimal(text: str) -> bytes:
    """Bytes written as pairs of hexadecimal digits."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not made of hexadecimal pairs such as 00ff") from None


def header(text: str) -> tuple[str, str]:
    """A header written as name=value."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{shown(text)} is not name=value")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{shown(text)} is not text in UTF-8, as headers must be") from None
    return name, value


def path(text: str) -> str:
    """The path of a file, which need not exist."""
    if not text or "\0" in text:
        raise ValueError(f"{shown(text)} is not the path of a file")
    return text
