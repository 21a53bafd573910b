"""What an engine promises beyond the common, on both sides: there, or refused and said."""

import pytest
from engine_client import Client

from mbctl.errors import MbctlError, NotSupported, OutcomeUnknown


def has(client: Client, capability: str) -> bool:
    return capability in client.driver.capabilities


@pytest.mark.parametrize("bound", ["max_messages", "retain_bytes"])
def test_a_bound_of_a_topic_is_kept_or_refused(client: Client, bound: str) -> None:
    if has(client, bound):
        assert client.create_topic("bounded", **{bound: 1000})
        return
    with pytest.raises(NotSupported, match=bound):
        client.create_topic("bounded", **{bound: 1000})
    with pytest.raises(MbctlError):
        client.driver.call("topic", "bounded")


def test_messages_are_counted_or_batches_are(client: Client) -> None:
    client.reader()
    client.send(b"one", b"two")
    topic, status, info = client.driver.call("topic", "orders"), client.status(), client.info()
    (hold,) = client.driver.call("why", "orders").holds
    if has(client, "counts"):
        assert (topic.messages, status.messages, info.unread, hold.messages) == (2, 2, 2, 2)
        assert (topic.batches, status.batches, info.unread_batches) == (None, None, None)
        assert (info.dropped, info.expired) == (0, 0)
    else:
        assert (topic.messages, status.messages, info.unread, hold.messages) == (None,) * 4
        assert (topic.batches, status.batches, info.unread_batches, hold.batches) == (1, 1, 1, 1)
        assert (info.dropped, info.expired) == (None, None)


def test_messages_are_reclaimed_one_by_one_or_by_batch(client: Client) -> None:
    client.reader()
    client.send(b"one", b"two")
    got = client.pull(count=1)
    client.ack(got)
    assert client.kept() == (1 if has(client, "parts_reclaimed") else 2)
    client.ack(client.pull())
    assert client.kept() == 0


def test_a_retry_is_safe_for_as_long_as_the_status_says(client: Client) -> None:
    retry_s = client.status().retry_s
    assert retry_s == (600 if has(client, "long_retries") else 60)
    first = client.send(b"one", sequence=1)
    assert client.send(b"one", sequence=1, age_ms=round(retry_s * 1000) - 1000) == first
    with pytest.raises(OutcomeUnknown):
        client.send(b"one", sequence=1, age_ms=round(retry_s * 1000) + 1)


def test_a_backup_is_there_or_refused(client: Client) -> None:
    if has(client, "backup"):
        client.driver.call("backup").close()
        return
    with pytest.raises(NotSupported):
        client.driver.call("backup")


def test_what_an_acknowledgement_means_is_said_where_a_word_does_not(client: Client) -> None:
    status = client.status()
    topic = client.driver.call("topic", "orders")
    assert topic.note == status.note
    assert bool(status.note) == status.durability.startswith("sync ")
    if "1 replica" in status.durability:
        assert "may be forgotten" in status.note
    if "3 replicas" in status.durability:
        assert "outlives" in status.note
