"""A backup by the command line: taken of a running server, restored, served."""

from collections.abc import Callable
from pathlib import Path

import pytest
from broker_process import BrokerProcess
from cli_harness import Run

from mbctl.actions import exit_codes

StartBroker = Callable[..., BrokerProcess]


@pytest.fixture
def backup(run: Run, tmp_path: Path, start_broker: StartBroker) -> Path:
    """A backup of a server with three messages, of which one is acknowledged."""
    broker = start_broker(data=tmp_path / "data")
    where = ("--server", broker.address)
    assert run("topic", "create", "orders", *where).code == 0
    assert run("subscribe", "orders", "--name", "billing", *where).code == 0
    assert run("send", "orders", "--lines", *where, stdin=b"one\ntwo\nthree\n").code == 0
    assert run("pull", "orders", "--name", "billing", "-n", "1", *where).code == 0
    file = tmp_path / "broker.backup"
    assert run("backup", str(file), *where).code == 0
    return file


@pytest.mark.parametrize("is_file_first", [True, False])
def test_restored_directory_is_served(
    run: Run, backup: Path, tmp_path: Path, start_broker: StartBroker, is_file_first: bool
) -> None:
    operands = [str(backup), str(tmp_path / "restored")]
    ended = run("restore", *(operands if is_file_first else operands[::-1]), "-o", "json")
    assert ended.code == 0, ended.err
    assert (ended.json["topics"], ended.json["messages"], ended.json["whole"]) == (1, 3, True)
    broker = start_broker(data=tmp_path / "restored")
    pulled = run("pull", "orders", "--name", "billing", "-o", "raw", "--server", broker.address)
    assert pulled.out == b"two\nthree\n"


def test_restoring_says_how_to_go_on(run: Run, backup: Path, tmp_path: Path) -> None:
    ended = run("restore", str(backup), str(tmp_path / "the restored"))
    assert ended.code == 0
    assert f"mbctl server --data '{tmp_path}/the restored'" in ended.err


def test_what_cannot_be_restored_leaves_nothing(run: Run, backup: Path, tmp_path: Path) -> None:
    backup.write_bytes(backup.read_bytes()[:3000])
    ended = run("restore", str(backup), str(tmp_path / "restored"))
    assert ended.code == exit_codes.UNEXPECTED
    assert "cannot be restored" in ended.err
    assert not (tmp_path / "restored").exists()


def test_directory_in_use_is_not_replaced(run: Run, backup: Path, tmp_path: Path) -> None:
    ended = run("restore", str(backup), str(tmp_path / "data"))
    assert ended.code == exit_codes.USAGE
    assert "is not empty" in ended.err


def test_missing_backup_is_said(run: Run, tmp_path: Path) -> None:
    ended = run("restore", str(tmp_path / "none"), str(tmp_path / "restored"))
    assert ended.code == exit_codes.UNEXPECTED
    assert "no such file" in ended.err
