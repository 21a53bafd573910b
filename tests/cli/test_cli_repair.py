"""A damaged directory by the command line: refused, looked at, repaired, served again."""

import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker_process import BrokerProcess
from cli_harness import Command, Run

from mbctl.journal.format import BATCH, SEGMENT_HEAD_BYTES, salt_of, unpack_head
from mbctl.journal.format import unpack_segment_head as head_of

SEGMENT = "0000000001.segment"

StartBroker = Callable[..., BrokerProcess]


@pytest.fixture
def data(run: Run, tmp_path: Path, start_broker: StartBroker) -> Path:
    """A directory with three messages and a subscriber, whose server was killed."""
    data = tmp_path / "the data"
    broker = start_broker(data=data)
    where = ("--server", broker.address)
    assert run("topic", "create", "orders", *where).code == 0
    assert run("subscribe", "orders", "--name", "billing", *where).code == 0
    for payload in ("one", "two", "three"):
        assert run("send", "orders", payload, *where).code == 0
    broker.kill()
    return data


def batch_at(data: Path, count: int) -> int:
    """Where the batch of that number is in the first segment."""
    content = (data / SEGMENT).read_bytes()
    head = head_of(content)
    assert head is not None
    position, seen = SEGMENT_HEAD_BYTES, 0
    while (record := unpack_head(content, salt_of(head.journal_id), position)) is not None:
        seen += record.kind == BATCH
        if seen == count:
            return position
        position += 88 + record.body_size
    raise AssertionError("there are not so many")


def damage(data: Path, position: int) -> None:
    with (data / SEGMENT).open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def files_of(data: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in data.iterdir() if p.is_file()}


def kinds(out: bytes) -> list[str]:
    """The first words of the lines of a report."""
    return [line.split("\t")[0] for line in out.decode().splitlines()]


def test_whole_directory_is_said_to_be_whole(run: Run, data: Path) -> None:
    before = files_of(data)
    ended = run("verify", str(data))
    assert (ended.code, ended.err) == (0, "nothing is wrong\n")
    assert b"messages\t3\n" in ended.out
    assert run("repair", str(data)).code == 0
    assert run("repair", "--accept-loss", str(data)).err == "nothing is wrong\n"
    assert files_of(data) == before


def test_damaged_directory_is_refused_and_served_after_the_command_that_is_said(
    run: Run, data: Path, start_broker: StartBroker
) -> None:
    damage(data, batch_at(data, 2) + 20)
    before = files_of(data)
    with Command("server", "--port", "0", "--data", str(data)) as refused:
        ended = refused.end()
    assert ended.code == 1
    said = "mbctl repair --accept-loss"
    assert said in ended.err

    looked = run("verify", str(data), "-o", "json")
    assert looked.code == 8
    lost = [{"topic": "orders", "topic_id": 1, "first": 1, "next": 2}]
    assert (looked.json["whole"], looked.json["lost"]) == (False, lost)
    only_said = run("repair", str(data))
    assert (only_said.code, "accept-loss" in only_said.err) == (8, True)
    assert {**files_of(data), "LOCK": b""} == {**before, "LOCK": b""}

    # What the advice at the end of the error says, as a shell takes it.
    advice = only_said.err.strip().partition(": ")[2]
    program, *args = shlex.split(advice)
    assert program == "mbctl"
    repaired = run(*args)
    assert repaired.code == 0
    assert {"damage", "lost", "replaced"} <= set(kinds(repaired.out))
    assert "lost+found/before-repair-1" in repaired.err
    kept = data / "lost+found" / "before-repair-1"
    assert (kept / SEGMENT).read_bytes() == before[SEGMENT]
    for path in (data, *data.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path

    broker = start_broker(data=data)
    told = pull(run, broker)
    assert told.code == 1
    assert "the messages from 1 to before 2 are damaged on disk" in told.err
    assert pulled(run, broker) == [b"one\n", b"three\n"]
    assert (
        run("send", "orders", "four", "--server", broker.address, "-o", "json").json["offset"] == 3
    )
    assert broker.stop()[0] == 0
    assert run("verify", str(data)).code == 0


def pull(run: Run, broker: BrokerProcess) -> Any:
    where = ("--server", broker.address)
    return run("pull", "orders", "--name", "billing", "-o", "raw", *where)


def pulled(run: Run, broker: BrokerProcess) -> list[bytes]:
    ended = pull(run, broker)
    assert ended.code == 0, ended.err
    return ended.out.splitlines(keepends=True)


def test_directory_of_a_running_server_is_refused(
    run: Run, data: Path, start_broker: StartBroker
) -> None:
    broker = start_broker(data=data)
    for command in (["verify"], ["repair"], ["repair", "--accept-loss"]):
        ended = run(*command, str(data))
        assert ended.code == 1
        assert f"in use by the process {broker.pid}; stop that server first" in ended.err
    assert broker.stop()[0] == 0


@pytest.mark.parametrize("command", ["verify", "repair", "repair --accept-loss"])
def test_what_is_no_data_directory_is_refused(command: str, run: Run, tmp_path: Path) -> None:
    missing = run(*command.split(), str(tmp_path / "nothing"))
    assert (missing.code, "no such file or directory" in missing.err) == (1, True)
    empty = run(*command.split(), str(tmp_path))
    assert (empty.code, "is empty" in empty.err) == (2, True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "letter").touch()
    other = run(*command.split(), str(tmp_path))
    assert (other.code, "is not a data directory of mbctl" in other.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_table_is_for_people(run: Run, data: Path) -> None:
    damage(data, batch_at(data, 2) + 20)
    shown = run("verify", str(data), "-o", "table").out.decode()
    assert "Messages" in shown
    assert "1 message, from 1 to before 2" in shown
    assert run("verify", str(data), "--quiet").err == ""
