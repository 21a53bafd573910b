"""Backups over the wire: part by part, one a connection, few in all, and none forgotten."""

import asyncio
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocking_aio
import pytest
from broker_process import wait_until
from server_harness import RawClient, ServerInside
from stored_backups import BackedUpJournal

from mbctl import Admin, ConnectionLost, InvalidArgument, LimitExceeded, NotSupported, aio
from mbctl.errors import ProtocolError
from mbctl.server import backups
from mbctl.server.backups import BACKUPS_MAX
from mbctl.wire import messages as wire
from mbctl.wire.messages import BACKUP_PART_BYTES

CONTENT = random.Random(1).randbytes(2 * BACKUP_PART_BYTES + 12_345)


@pytest.fixture
def journal() -> BackedUpJournal:
    """A journal with something to back up."""
    return BackedUpJournal(CONTENT)


@pytest.fixture
def inside(journal: BackedUpJournal) -> Iterator[ServerInside]:
    """A server on that journal."""
    with ServerInside(journal=journal) as inside:
        yield inside
        assert inside.wait_until(lambda: inside.server.backups.count == 0)
        assert not any(backup.is_open for backup in journal.backups)


AdminKind = Callable[[str], Any]


@pytest.fixture(params=[Admin, blocking_aio.Admin], ids=["sync", "aio"])
def admin_kind(request: pytest.FixtureRequest) -> AdminKind:
    """The Admin of either face."""
    kind: AdminKind = request.param
    return kind


def part(client: RawClient, position: int | None) -> wire.BackupPart:
    reply = client.ask(wire.GetBackup(0, position))
    assert isinstance(reply, wire.BackupPart), reply
    return reply


def test_a_backup_is_read_part_by_part_and_ends_with_its_last(
    inside: ServerInside, journal: BackedUpJournal
) -> None:
    with inside.client().hello() as client:
        read = b""
        while len(read) < len(CONTENT):
            reply = part(client, len(read))
            assert (reply.size, reply.position) == (len(CONTENT), len(read))
            assert 0 < len(reply.content) <= BACKUP_PART_BYTES
            assert inside.on_loop(lambda: journal.backups[0].is_open) or reply.position
            read += reply.content
        assert read == CONTENT
        assert not inside.on_loop(lambda: journal.backups[0].is_open)
        # It is over: its parts cannot be asked for any more, and another may begin.
        assert client.refusal(wire.GetBackup(0, 5)) == "InvalidArgument"
        assert part(client, 0).content == CONTENT[:BACKUP_PART_BYTES]


def test_parts_may_be_asked_for_at_once(inside: ServerInside) -> None:
    with inside.client().hello() as client:
        part(client, 0)
        positions = [BACKUP_PART_BYTES + 5, 1, BACKUP_PART_BYTES, 99]
        asked = [wire.GetBackup(0, position) for position in positions]
        client.write(b"".join(map(client.frame, asked)))
        for request, position in zip(asked, positions, strict=True):
            reply = client.reply(request.id)
            assert isinstance(reply, wire.BackupPart)
            assert reply.content == CONTENT[position : position + BACKUP_PART_BYTES]


def test_a_connection_has_one_backup_at_a_time(inside: ServerInside) -> None:
    with inside.client().hello() as client:
        part(client, 0)
        assert client.refusal(wire.GetBackup(0, 0)) == "LimitExceeded"
        assert part(client, 7).content[:5] == CONTENT[7:12]
        assert part(client, None).content == b""
        assert part(client, 0).position == 0


def test_a_server_has_few_backups_at_a_time(inside: ServerInside) -> None:
    clients = [inside.client().hello() for _ in range(BACKUPS_MAX + 1)]
    *first, last = clients
    for client in first:
        part(client, 0)
    assert last.refusal(wire.GetBackup(0, 0)) == "LimitExceeded"
    # One that ends makes room, whichever way it does.
    first[0].reset()
    inside.wait_until(lambda: inside.server.backups.count == BACKUPS_MAX - 1)
    assert part(last, 0).size == len(CONTENT)
    for client in clients[1:]:
        client.socket.close()


@pytest.mark.parametrize("position", [-1, 5, len(CONTENT), 2**62])
def test_a_position_without_a_backup_is_refused(inside: ServerInside, position: int) -> None:
    with inside.client().hello() as client:
        assert client.refusal(wire.GetBackup(0, position)) == "InvalidArgument"
        assert part(client, None).size == 0


@pytest.mark.parametrize("position", [-1, len(CONTENT), 2**62])
def test_a_position_beyond_the_backup_is_refused_and_it_goes_on(
    inside: ServerInside, position: int
) -> None:
    with inside.client().hello() as client:
        part(client, 0)
        assert client.refusal(wire.GetBackup(0, position)) == "InvalidArgument"
        assert part(client, len(CONTENT) - 1).content == CONTENT[-1:]


def test_a_backup_ends_with_its_connection_even_before_it_has_begun(
    inside: ServerInside, journal: BackedUpJournal
) -> None:
    journal.is_held = True
    client = inside.client().hello()
    client.write(client.frame(wire.GetBackup(0, 0)))
    inside.wait_until(lambda: inside.server.backups.count == 1)
    client.socket.close()
    inside.wait_until(lambda: inside.server.backups.count == 0)
    inside.on_loop(journal.let_begin)
    assert [backup.is_open for backup in journal.backups] == [False]


def test_a_backup_that_is_ended_before_it_has_begun_is_refused(
    inside: ServerInside, journal: BackedUpJournal
) -> None:
    journal.is_held = True
    with inside.client().hello() as client:
        begin, end = wire.GetBackup(0, 0), wire.GetBackup(0, None)
        client.write(client.frame(begin) + client.frame(end))
        assert isinstance(client.reply(end.id), wire.BackupPart)
        inside.on_loop(journal.let_begin)
        refused = client.reply(begin.id)
        assert isinstance(refused, wire.Error)
        assert refused.code == "InvalidArgument"
        assert [backup.is_open for backup in journal.backups] == [False]


def test_a_backup_that_nobody_goes_on_with_ends(
    journal: BackedUpJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ServerInside(journal=journal) as inside, inside.client().hello() as client:
        inside.server.backups.idle_s = 0.05
        part(client, 0)
        inside.wait_until(lambda: not journal.backups[0].is_open)
        assert inside.on_loop(lambda: inside.server.backups.count) == 0
        assert client.refusal(wire.GetBackup(0, 7)) == "InvalidArgument"
    assert backups.IDLE_S == 60


# --- the library ----------------------------------------------------------------------------------


def test_a_backup_is_written_to_a_file_that_only_its_owner_may_read(
    admin_kind: AdminKind, inside: ServerInside, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "broker.backup"
    with admin_kind(inside.address) as admin:
        size = admin.backup(path, progress=lambda done, size: told.append((done, size)))
        assert admin.ping() > 0
    assert (size, path.read_bytes()) == (len(CONTENT), CONTENT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [done for done, _ in told] == [BACKUP_PART_BYTES, 2 * BACKUP_PART_BYTES, len(CONTENT)]
    assert {size for _, size in told} == {len(CONTENT)}
    assert list(tmp_path.iterdir()) == [path]


def test_a_backup_is_written_to_anything_that_takes_bytes(
    admin_kind: AdminKind, inside: ServerInside
) -> None:
    file = io.BytesIO()
    with admin_kind(inside.address) as admin:
        assert admin.backup(file) == len(CONTENT)
    assert file.getvalue() == CONTENT


def test_a_file_that_is_there_is_overwritten_only_when_told(
    admin_kind: AdminKind, inside: ServerInside, tmp_path: Path
) -> None:
    path = tmp_path / "broker.backup"
    path.write_bytes(b"mine")
    with admin_kind(inside.address) as admin:
        with pytest.raises(InvalidArgument, match="is there already"):
            admin.backup(path)
        assert path.read_bytes() == b"mine"
        admin.backup(str(path), overwrite=True)
        assert path.read_bytes() == CONTENT
        with pytest.raises(InvalidArgument, match="is no file"):
            admin.backup(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_comes_meanwhile_is_not_replaced(
    admin_kind: AdminKind, inside: ServerInside, tmp_path: Path
) -> None:
    path = tmp_path / "broker.backup"
    with admin_kind(inside.address) as admin, pytest.raises(InvalidArgument, match="already"):
        admin.backup(path, progress=lambda done, size: path.write_bytes(b"mine"))
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_backup_that_is_broken_off_leaves_nothing_behind(
    admin_kind: AdminKind, inside: ServerInside, journal: BackedUpJournal, tmp_path: Path
) -> None:
    def stop(done: int, size: int) -> None:
        raise ZeroDivisionError

    with admin_kind(inside.address) as admin:
        with pytest.raises(ZeroDivisionError):
            admin.backup(tmp_path / "broker.backup", progress=stop)
        assert list(tmp_path.iterdir()) == []
        inside.wait_until(lambda: not journal.backups[0].is_open)
        # And the admin goes on.
        assert admin.backup(io.BytesIO()) == len(CONTENT)


def test_a_connection_that_breaks_in_a_backup_is_told(
    admin_kind: AdminKind, inside: ServerInside, tmp_path: Path
) -> None:
    with admin_kind(inside.address) as admin:

        def cut(done: int, size: int) -> None:
            for connection in inside.on_loop(lambda: list(inside.server.connections)):
                inside.on_loop(connection.abort)

        with pytest.raises(ConnectionLost, match="begin anew"):
            admin.backup(tmp_path / "broker.backup", progress=cut)
        assert list(tmp_path.iterdir()) == []
        assert admin.backup(io.BytesIO()) == len(CONTENT)


def test_a_server_in_memory_refuses_a_backup(admin_kind: AdminKind, tmp_path: Path) -> None:
    with ServerInside() as inside, admin_kind(inside.address) as admin:
        with pytest.raises(NotSupported, match="in memory"):
            admin.backup(tmp_path / "broker.backup")
        assert list(tmp_path.iterdir()) == []
        assert inside.on_loop(lambda: inside.server.backups.count) == 0


def test_more_backups_than_the_server_has_are_told_to_the_client(
    admin_kind: AdminKind, inside: ServerInside
) -> None:
    clients = [inside.client().hello() for _ in range(BACKUPS_MAX)]
    for client in clients:
        part(client, 0)
    with (
        admin_kind(inside.address) as admin,
        pytest.raises(LimitExceeded, match="backups at a time"),
    ):
        admin.backup(io.BytesIO())
    for client in clients:
        client.socket.close()
    assert wait_until(lambda: inside.on_loop(lambda: inside.server.backups.count == 0))


def test_an_empty_part_in_the_middle_is_a_broken_protocol(
    admin_kind: AdminKind, inside: ServerInside, journal: BackedUpJournal
) -> None:
    def shorten(done: int, size: int) -> None:
        journal.backups[0].content = b""

    with (
        admin_kind(inside.address) as admin,
        pytest.raises(ProtocolError, match="part of the backup"),
    ):
        admin.backup(io.BytesIO(), progress=shorten)


def test_a_backup_that_is_cancelled_leaves_nothing_behind_and_the_connection_goes_on(
    inside: ServerInside, journal: BackedUpJournal, tmp_path: Path
) -> None:
    async def main() -> None:
        async with aio.Admin(inside.address) as admin:
            begun = asyncio.Event()
            task = asyncio.create_task(
                admin.backup(tmp_path / "broker.backup", progress=lambda *_: begun.set())
            )
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            connection = admin._connection
            assert list(tmp_path.iterdir()) == []
            assert await admin.backup(io.BytesIO()) == len(CONTENT)
            assert admin._connection is connection

    asyncio.run(main())
    assert [backup.is_open for backup in journal.backups] == [False, False]


def test_a_second_backup_of_one_admin_is_refused_and_the_first_goes_on(
    inside: ServerInside,
) -> None:
    async def main() -> None:
        async with aio.Admin(inside.address) as admin:
            file = io.BytesIO()
            first = asyncio.create_task(admin.backup(file))
            await asyncio.sleep(0)
            with pytest.raises(InvalidArgument, match="use another for a second"):
                await admin.backup(io.BytesIO())
            assert await first == len(CONTENT)
            assert file.getvalue() == CONTENT

    asyncio.run(main())
