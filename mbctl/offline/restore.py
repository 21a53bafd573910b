"""Makes a data directory of a backup: unpacked beside its place, checked, and then put there."""

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from mbctl.errors import BackupDamaged, InvalidArgument, NewerFormat, StorageCorrupt
from mbctl.files import Directory, Disk
from mbctl.journal.backup import BACKUP_VERSION, CONTENTS_NAME, Contents
from mbctl.journal.directory import FORMAT_NAME
from mbctl.journal.snapshot import SNAPSHOT_NAME
from mbctl.model import MIB
from mbctl.offline.examine import examine
from mbctl.offline.report import Report

Progress = Callable[[int, int], None]
"""Told how many bytes were restored, of how many."""

_SEGMENT = re.compile(r"[0-9]{1,20}\.(segment|cold)", re.ASCII)
_PIECE_BYTES = MIB
# No list of files is longer; a file that is no backup may say anything.
_CONTENTS_BYTES_MAX = 64 * MIB


def restore(backup: Path, directory: Path, progress: Progress = lambda done, total: None) -> Report:
    """Make the data directory ``directory`` of ``backup``; what is in it.

    It appears whole and on disk, or not at all.

    Raises:
        InvalidArgument: ``directory`` is there, and not an empty directory.
        BackupDamaged: the file is not a backup, or not a whole one.
        NewerFormat: a newer mbctl made it.
        OSError: a file cannot be read, or there is no room.
    """
    directory = directory.absolute()
    _check_free(directory)
    partial = directory.with_name(f"{directory.name}.restoring")
    try:
        # Nobody else may read what is in it; who was interrupted before left his part here.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        with _damage_told(backup):
            _unpack(backup, partial, progress)
        report = _examined(backup, partial)
        _sync(partial)
        with suppress(FileNotFoundError):
            directory.rmdir()
        partial.rename(directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return msgspec.structs.replace(report, directory=str(directory))


def _examined(backup: Path, directory: Path) -> Report:
    """What was unpacked, if all of it is whole."""
    try:
        report = examine(Directory(Disk(), directory)).report
    except StorageCorrupt as error:
        reason = f"what is in it is damaged: {error.details['reason']}"
        raise BackupDamaged(path=str(backup), reason=reason) from error
    if not report.is_whole:
        found = report.findings[0]
        raise BackupDamaged(path=str(backup), reason=f"{found.file}: {found.what}")
    return report


def _check_free(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise InvalidArgument(reason=f"{directory} is not a directory")
    if directory.is_dir() and any(directory.iterdir()):
        raise InvalidArgument(
            reason=f"{directory} is not empty; restore into a new or an empty directory"
        )
    if not directory.parent.is_dir():
        raise InvalidArgument(reason=f"there is no directory {directory.parent}")


@contextmanager
def _damage_told(backup: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise BackupDamaged(
            path=str(backup), reason=f"it is not a whole tar file: {error}"
        ) from error


def _unpack(backup: Path, directory: Path, progress: Progress) -> None:
    with tarfile.open(backup, "r:") as archive:
        contents = _contents(backup, archive)
        total = sum(contents.files.values())
        done = 0
        expected = iter(contents.files.items())
        for name, size in expected:
            member = archive.next()
            if member is None:
                raise BackupDamaged(path=str(backup), reason=f"it ends before {name}")
            if member.name != name or member.size != size or not member.isreg():
                raise BackupDamaged(path=str(backup), reason=f"{member.name!r} is not {name}")
            source = archive.extractfile(member)
            assert source is not None
            with source:
                for piece in _copy(source, directory / name, size):
                    done += piece
                    progress(done, total)


def _contents(backup: Path, archive: tarfile.TarFile) -> Contents:
    """What the backup says it has, all of it names that a data directory may have."""
    member = archive.next()
    if member is None or member.name != CONTENTS_NAME or not member.isreg():
        raise BackupDamaged(path=str(backup), reason="it is not a backup of mbctl")
    if member.size > _CONTENTS_BYTES_MAX:
        raise BackupDamaged(path=str(backup), reason="its list of files is too long")
    source = archive.extractfile(member)
    assert source is not None
    with source:
        try:
            contents = msgspec.json.decode(source.read(), type=Contents)
        except msgspec.DecodeError as error:
            raise BackupDamaged(
                path=str(backup), reason=f"its list of files cannot be read: {error}"
            ) from error
    if contents.version > BACKUP_VERSION:
        raise NewerFormat(what=str(backup), found=contents.version, known=BACKUP_VERSION)
    for name in contents.files:
        if name not in (FORMAT_NAME, SNAPSHOT_NAME) and _SEGMENT.fullmatch(name) is None:
            raise BackupDamaged(path=str(backup), reason=f"{name!r} is no file of a backup")
    return contents


def _copy(source: IO[bytes], path: Path, size: int) -> Iterator[int]:
    """Write a file and sync it; how many bytes each piece of it had."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while size:
            piece = source.read(min(size, _PIECE_BYTES))
            if not piece:
                raise tarfile.ReadError("unexpected end of data")
            file.write(piece)
            size -= len(piece)
            yield len(piece)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
