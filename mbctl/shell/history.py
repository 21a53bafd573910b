"""The lines typed in a shell, kept between its runs: one line of the file for each.

A line that begins with a space is not kept, which is how to keep a secret out.
"""

import os
from pathlib import Path

from mbctl.shell.commands import Kind

LINES_MAX = 10_000
"""Lines that are kept. Arbitrary: years of typing."""

BYTES_MAX = 4 * 1024 * 1024
"""A file above this is cut when a shell starts, whatever its lines: pasted messages are long."""


def path_for(kind: Kind) -> Path:
    """The history file of one shell, in the user's directory for the state of programs."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification says to ignore a path that is not absolute.
    directory = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return directory / "mbctl" / f"{kind}_history"


class LineHistory:
    """The history in one file, readable by its owner only.

    A file that cannot be read or written costs the history, never the shell.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines = self._load()

    def append(self, typed: str) -> list[str]:
        """Keep what was typed, a pasted block line by line; return the lines that are new."""
        added = []
        for line in typed.split("\n"):
            if line.strip() and not line.startswith(" ") and line != self._last:
                self.lines.append(line)
                added.append(line)
        if added:
            self._store(added)
        return added

    @property
    def _last(self) -> str:
        return self.lines[-1] if self.lines else ""

    def _load(self) -> list[str]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = self._path.read_bytes()
        except OSError:
            return []
        lines = _decode(data)
        kept = lines[-LINES_MAX:]
        if len(kept) < len(lines) or len(data) > BYTES_MAX:
            self._replace(kept)
        return kept

    def _replace(self, lines: list[str]) -> None:
        shorter = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            _write(shorter, lines)
            shorter.replace(self._path)
        except (OSError, UnicodeError):
            shorter.unlink(missing_ok=True)

    def _store(self, lines: list[str]) -> None:
        try:
            _write(self._path, lines)
        except (OSError, UnicodeError):
            # A full disk, a directory of somebody else, half a character pair: the lines
            # stay in this run.
            return


def _decode(data: bytes) -> list[str]:
    """The lines of a history file; of one that is too large, those of its end."""
    if len(data) > BYTES_MAX:
        data = data[-BYTES_MAX // 2 :].partition(b"\n")[2]
    text = data.decode("utf-8", "surrogateescape")
    return [line for line in text.split("\n") if line]


def _write(path: Path, lines: list[str]) -> None:
    """Append ``lines``, to a file that nobody else can read even if it was there before."""
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
