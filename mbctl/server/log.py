"""The server's log: one event, one line, on stderr. Payloads are never logged."""

import json
import logging
import sys
import time
from typing import Any

logger = logging.getLogger("mbctl.server")

# Clients that misbehave in a loop must not fill the log: lines a second of one event.
_LINES_PER_S = 5
_FIELD_LENGTH_MAX = 1024


def event(level: int, name: str, **fields: Any) -> None:
    """Log that ``name`` happened, with ``fields`` as its details."""
    logger.log(level, name, extra={"fields": fields})


def configure(log_format: str) -> None:
    """Send the log to stderr as ``text`` or ``json``."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(_Lines(as_json=log_format == "json"))
    stream.addFilter(_Flood())
    logger.handlers[:] = [stream]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Lines(logging.Formatter):
    """Text: time level event name=value. JSON: one object. Both without control characters."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            name: value if isinstance(value, int | float) else str(value)[:_FIELD_LENGTH_MAX]
            for name, value in getattr(record, "fields", {}).items()
        }
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        stamp = f"{stamp}.{int(record.msecs):03d}Z"
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)[-_FIELD_LENGTH_MAX:]
        if self._as_json:
            line = {"time": stamp, "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps(line | fields)
        details = "".join(f" {name}={json.dumps(value)}" for name, value in fields.items())
        return f"{stamp} {record.levelname.lower():7} {record.getMessage()}{details}"


class _Flood(logging.Filter):
    """Passes at most so many lines a second of one event, and says what it held back."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._counts: dict[str, int] = {}
        self._held_back: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._counts.clear()
        name = record.msg
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if count > _LINES_PER_S:
            self._held_back[name] = self._held_back.get(name, 0) + 1
            return False
        fields: dict[str, Any] = {}
        if count == _LINES_PER_S:
            fields["note"] = "more of these in this second are not logged"
        if held_back := self._held_back.pop(name, 0):
            fields["held_back"] = held_back
        record.fields = getattr(record, "fields", {}) | fields
        return True
