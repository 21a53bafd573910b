"""A backup becomes a data directory, or nothing at all."""

import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mbctl import Admin, BackupDamaged, InvalidArgument, NewerFormat, Publisher, Server, Subscriber
from mbctl.journal.backup import BACKUP_VERSION, CONTENTS_NAME
from mbctl.offline.restore import restore


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup with 300 messages in three batches, of which the first was acknowledged."""
    directory = tmp_path_factory.mktemp("backup")
    file = directory / "broker.backup"
    with Server(memory=False, data=directory / "data") as server:
        with (
            Publisher(server.address) as publisher,
            Subscriber(server.address, "billing") as reader,
        ):
            publisher.create_topic("orders")
            reader.subscribe("orders")
            for number in range(3):
                publisher.send_many("orders", [b"%d" % number * 50] * 100)
            reader.pull("orders", 100).ack()
        with Admin(server.address) as admin:
            admin.backup(file)
    return file


def members_of(backup: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The members of a backup, with their contents."""
    with tarfile.open(backup) as archive:
        return [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]


def write(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """A tar file of these members."""
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_restored_directory_serves_what_was_backed_up(backup: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = restore(backup, tmp_path / "restored", lambda done, total: told.append((done, total)))
    assert report.is_whole
    assert (report.topics, report.subscriptions) == (1, 1)
    assert report.directory == str(tmp_path / "restored")
    assert told[-1][0] == told[-1][1] > 15_000
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert left_in(tmp_path) == ["restored"]
    with (
        Server(memory=False, data=tmp_path / "restored") as server,
        Subscriber(server.address, "billing") as reader,
    ):
        reader.subscribe("orders")
        assert reader.pull("orders", 1000).payloads == [b"1" * 50] * 100 + [b"2" * 50] * 100
        with Publisher(server.address) as publisher:
            assert publisher.send("orders", b"next").offset == 300


def test_restored_files_are_for_the_owner_alone(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "restored")
    assert stat.S_IMODE((tmp_path / "restored").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "restored").iterdir()}
    assert modes == {0o600}


def test_empty_directory_is_taken(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "restored").mkdir()
    assert restore(backup, tmp_path / "restored").is_whole


def test_directory_that_is_not_empty_is_left_alone(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for path, reason in [(tmp_path, "not empty"), (tmp_path / "mine", "not a directory")]:
        with pytest.raises(InvalidArgument, match=reason):
            restore(backup, path)
    assert left_in(tmp_path) == ["mine"]


def test_directory_without_a_place_is_refused(backup: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="there is no directory"):
        restore(backup, tmp_path / "a" / "b")


def test_what_an_interrupted_restore_left_is_no_obstacle(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "restored.restoring").mkdir()
    (tmp_path / "restored.restoring" / "FORMAT").write_text("half")
    assert restore(backup, tmp_path / "restored").is_whole
    assert left_in(tmp_path) == ["restored"]


def test_backup_that_was_cut_off_anywhere_restores_nothing(backup: Path, tmp_path: Path) -> None:
    content = backup.read_bytes()
    cut = tmp_path / "cut"
    # The zeros at the end are the only part that nobody misses.
    for size in {0, 1, 511, 512, *range(700, len(content) - 6000, 977), len(content) - 5700}:
        cut.write_bytes(content[:size])
        with pytest.raises(BackupDamaged):
            restore(cut, tmp_path / "restored")
        assert left_in(tmp_path) == ["cut"]


def test_byte_that_was_changed_is_found(backup: Path, tmp_path: Path) -> None:
    """In the head of a member, the list, the snapshot, or a record; not in what fills up."""
    content = backup.read_bytes()
    changed = tmp_path / "changed"
    segment = content.index(b"mbctlSeg")
    snapshot = content.index(b"mbctlSna")
    for position in (3, 130, 520, snapshot + 3, snapshot + 66, segment + 12, segment + 200):
        changed.write_bytes(
            content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
        )
        with pytest.raises((BackupDamaged, NewerFormat)):
            restore(changed, tmp_path / "restored")
        assert left_in(tmp_path) == ["changed"]


Forgery = Callable[[list[tuple[tarfile.TarInfo, bytes]]], list[tuple[tarfile.TarInfo, bytes]]]


def named(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def contents(version: int = BACKUP_VERSION, **files: int) -> bytes:
    return msgspec.json.encode({"version": version, "created": 0, "files": files})


def linked(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
    return info, b""


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda members: members[1:], "not a backup"),
        (lambda members: members[:-1], "ends before"),
        (lambda members: [members[0], *members[2:]], "is not FORMAT"),
        (lambda members: [members[0], members[2], members[1], *members[3:]], "is not FORMAT"),
        (lambda _: [named(CONTENTS_NAME, b"{")], "cannot be read"),
        (
            lambda _: [named(CONTENTS_NAME, contents(**{"../evil": 1})), named("../evil")],
            "no file of a backup",
        ),
        (
            lambda _: [named(CONTENTS_NAME, contents(**{"/evil": 1})), named("/evil")],
            "no file of a backup",
        ),
        (
            lambda _: [named(CONTENTS_NAME, contents(LOCK=1)), named("LOCK")],
            "no file of a backup",
        ),
        (
            lambda _: [named(CONTENTS_NAME, contents(FORMAT=0)), linked("FORMAT")],
            "is not FORMAT",
        ),
        (
            lambda _: [named(CONTENTS_NAME, contents(FORMAT=1)), named("FORMAT")],
            "what is in it is damaged",
        ),
    ],
)
def test_forged_backup_restores_nothing(
    backup: Path, tmp_path: Path, forge: Forgery, reason: str
) -> None:
    forged = write(tmp_path / "forged", forge(members_of(backup)))
    with pytest.raises(BackupDamaged, match=reason):
        restore(forged, tmp_path / "restored")
    assert left_in(tmp_path) == ["forged"]


def test_backup_of_a_newer_version_is_refused(backup: Path, tmp_path: Path) -> None:
    newer = write(tmp_path / "newer", [named(CONTENTS_NAME, contents(BACKUP_VERSION + 1))])
    with pytest.raises(NewerFormat):
        restore(newer, tmp_path / "restored")


def test_missing_backup_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        restore(tmp_path / "none", tmp_path / "restored")
    assert left_in(tmp_path) == []
