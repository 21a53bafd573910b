"""doctor: each check says what it saw, its fix, and whether it failed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker_process import BrokerProcess
from cli_harness import Run

from mbctl import Admin, Publisher, Subscriber


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


def findings(run: Run, *args: str) -> dict[str, Any]:
    """What doctor found, by check."""
    ended = run("doctor", "-o", "json", *args)
    assert ended.code in (0, 8), ended.err
    found = {row["check"]: row for row in ended.json}
    assert (ended.code == 8) == any(row["state"] == "fail" for row in found.values())
    return found


def test_a_server_that_is_well_has_no_failed_check(run: Run, server: str) -> None:
    found = findings(run)
    server_side = ("server", "version", "round trip", "clock", "room")
    assert {name: found[name]["state"] for name in server_side} == dict.fromkeys(server_side, "ok")
    assert all(row["fix"] for row in found.values() if row["state"] != "ok")
    assert not any(row["fix"] for row in found.values() if row["state"] == "ok")


def test_a_server_in_memory_is_worth_a_look(run: Run, start_broker: Callable[..., Any]) -> None:
    broker: BrokerProcess = start_broker("--memory")
    found = findings(run, "--server", broker.address)
    assert found["durability"]["state"] == "warn"
    assert "--data DIR" in found["durability"]["fix"]


def test_no_server_is_a_failed_check_with_its_fix(run: Run) -> None:
    found = findings(run, "--server", "127.0.0.1:1", "--timeout", "0.2")
    assert found["server"]["state"] == "fail"
    assert "mbctl server" in found["server"]["fix"]


def test_a_full_topic_and_parked_messages_are_found(run: Run, server: str, topic: str) -> None:
    with Publisher(server) as publisher, Subscriber(server, "parker") as subscriber:
        publisher.create_topic(topic, max_messages=1)
        subscriber.subscribe(topic, max_deliveries=1)
        publisher.send(topic, b"x")
        subscriber.pull(topic, wait=1, auto_ack=False).nack()
        subscriber.pull(topic, wait=0)
        found = findings(run)
    assert (found["topics"]["state"], topic in found["topics"]["what"]) == ("fail", True)
    assert found["topics"]["fix"].startswith("mbctl topic why ")
    assert found["parked"]["fix"].startswith("mbctl subscription show ")
    with Admin(server) as admin:
        admin.delete_topic(topic)


def test_trial_sends_a_message_and_leaves_nothing(run: Run, server: str) -> None:
    assert findings(run, "--trial")["trial"]["state"] == "ok"
    with Admin(server) as admin:
        assert not [i.topic for i in admin.topics() if i.topic.startswith("mbctl-doctor-")]


def test_contexts_that_cannot_be_read_fail(run: Run, server: str, tmp_path: Path) -> None:
    (tmp_path / "mbctl").mkdir()
    (tmp_path / "mbctl" / "contexts.toml").write_text("[")
    found = findings(run)
    assert found["contexts"]["state"] == "fail"
    assert str(tmp_path / "mbctl" / "contexts.toml") in found["contexts"]["fix"]


def test_completion_is_looked_for(
    run: Run, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert findings(run)["completion"]["fix"] == "mbctl --install-completion"
    script = tmp_path / ".config" / "fish" / "completions" / "mbctl.fish"
    script.parent.mkdir(parents=True)
    script.touch()
    assert findings(run)["completion"]["state"] == "ok"


def test_people_see_signs_and_fixes(run: Run) -> None:
    ended = run("doctor", "-o", "table", "-s", "127.0.0.1:1", "--timeout", "0.2")
    lines = ended.out.decode().splitlines()
    assert ended.code == 8
    assert any(line.startswith("✗ server ") for line in lines)
    assert any("fix: is the server running?" in line for line in lines)
    assert "1 failed" in ended.err
