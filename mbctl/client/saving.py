"""Where a backup is written: whole and durable at its path, or not there at all."""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from mbctl.errors import InvalidArgument

BackupTarget = str | os.PathLike[str] | BinaryIO
"""A path, or something to write bytes to."""


class BackupFile:
    """A file that appears at its path when it is finished, or what the caller gave to write to.

    Used as a context; leaving it before ``finish`` removes what was written so far.
    """

    def __init__(self, target: BackupTarget, *, overwrite: bool) -> None:
        self._path: Path | None = None
        self._part: Path | None = None
        self._overwrite = overwrite
        if isinstance(target, str | os.PathLike):
            self._path = Path(target)
            self._check_free(self._path)
            self._file = self._open_part(self._path)
        elif hasattr(target, "write"):
            self._file = target
        else:
            what = type(target).__name__
            raise InvalidArgument(reason=f"a backup goes to a path or a binary file, not {what}")

    def _check_free(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        if not path.is_file():
            raise InvalidArgument(reason=f"{path} is there, and is no file")
        if not self._overwrite:
            raise InvalidArgument(
                reason=f"{path} is there already; choose another, or overwrite it"
            )

    def _open_part(self, path: Path) -> BinaryIO:
        # In the same directory, because only there it can be renamed.
        self._part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.fdopen(os.open(self._part, flags, 0o600), "wb")
        except OSError as error:
            # The name that was given says more than the one that was made up.
            error.filename = os.fspath(path)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._part is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._part.unlink()

    def write(self, content: bytes) -> None:
        """Add ``content``."""
        rest = memoryview(content)
        # What is not buffered may take a part only.
        while rest:
            written = self._file.write(rest)
            rest = rest[len(rest) if written is None else written :]

    def finish(self) -> None:
        """Let the file be durable and visible at its path.

        Raises:
            InvalidArgument: another has come to be there meanwhile.
        """
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()
        if self._path is None or self._part is None:
            return
        os.fsync(self._file.fileno())
        self._file.close()
        if self._overwrite:
            self._check_free(self._path)
            self._part.replace(self._path)
        else:
            self._show_new(self._part, self._path)
        self._part = None
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _show_new(self, part: Path, path: Path) -> None:
        try:
            # Unlike renaming, this never replaces what is there.
            os.link(part, path)
        except FileExistsError:
            self._check_free(path)
            raise
        except OSError:
            # There are file systems without links.
            self._check_free(path)
            part.replace(path)
        else:
            part.unlink()
