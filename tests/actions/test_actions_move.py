"""A move that dies at any place, and the next one: each message once, in order, on real servers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from broker_process import BrokerProcess

from mbctl import Admin, Publisher, Subscriber
from mbctl.actions.move import SUBSCRIBER, Move
from mbctl.client.moving import PartAdmin
from mbctl.errors import InvalidArgument, OutcomeUnknown, TopicExists, TopicFull

Content = tuple[bytes, bytes | None, dict[str, str]]

# Three alike, for a copy must not be taken for the message before or after it.
SENT: list[Content] = [
    (b"same", None, {}),
    (b"same", None, {}),
    (b"same", None, {}),
    (b"", b"", {"type": "empty"}),
    (b"\x00\xff\n", b"k\x00", {"a": "1", "b": ""}),
    ("grüße".encode(), None, {"größe": "µ"}),
]


class Killed(Exception):
    """Stands for the end of the process."""


class DiesBeforeSending(Move):
    """Has written down what it sends, and then is killed."""

    def _send(self, messages: Any) -> int:
        raise Killed


class DiesAfterSending(Move):
    """Is killed before it knows that what it has sent is stored."""

    def _send(self, messages: Any) -> int:
        super()._send(messages)
        raise Killed


class ComesLate(Move):
    """Comes when the target has forgotten the session."""

    def _open_publisher(self) -> None:
        self._session = os.urandom(16)
        super()._open_publisher()


class LooksTooEarly(Move):
    """Looks at the target while what was sent before is still on its way there."""

    def _end_if_stored(self, *_: Any) -> None:
        return None


@pytest.fixture(scope="module")
def other() -> Iterator[BrokerProcess]:
    """The server that topics are moved to."""
    broker = BrokerProcess()
    yield broker
    broker.check()


@pytest.fixture
def target(other: BrokerProcess) -> str:
    return other.address


@pytest.fixture
def filled(server: str, topic: str) -> str:
    """A topic of all that there is to copy, in two batches."""
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        for part in (SENT[:2], SENT[2:]):
            payloads, keys, headers = zip(*part, strict=True)
            publisher.send_many(topic, payloads, keys=keys, headers=headers)
    return topic


@contextmanager
def moving(kind: type[Move], server: str, target: str, topic: str) -> Iterator[Move]:
    with (
        PartAdmin(server, timeout=10) as source_admin,
        PartAdmin(target, timeout=10) as target_admin,
        kind(source_admin, target_admin, topic) as move,
    ):
        yield move


def move_all(kind: type[Move], server: str, target: str, topic: str) -> int:
    """Move what there is; how many messages were sent for that."""
    with moving(kind, server, target, topic) as move:
        move.begin()
        while move.step():
            pass
        move.acknowledge()
        assert move.lag() == 0
        return move.moved.messages


def kept(server: str, topic: str) -> list[Content]:
    with Admin(server) as admin:
        shown = admin.peek(topic, "earliest", 1000)
    return [(message.payload, message.key, dict(message.headers)) for message in shown]


def die(kind: type[Move], server: str, target: str, topic: str) -> None:
    with pytest.raises(Killed):
        move_all(kind, server, target, topic)


def test_move_copies_all_that_a_message_has(server: str, target: str, filled: str) -> None:
    assert move_all(Move, server, target, filled) == len(SENT)
    assert kept(target, filled) == SENT
    assert move_all(Move, server, target, filled) == 0
    assert kept(server, filled) == []


@pytest.mark.parametrize("after", [Move, ComesLate])
@pytest.mark.parametrize("killed", [DiesBeforeSending, DiesAfterSending])
def test_move_killed_while_sending_is_finished_by_the_next(
    server: str, target: str, filled: str, killed: type[Move], after: type[Move]
) -> None:
    for _ in range(2):
        die(killed, server, target, filled)
        with Publisher(server) as publisher:
            publisher.send(filled, b"same")
        was_stored = len(kept(target, filled))
        move_all(after, server, target, filled)
        assert was_stored <= len(kept(target, filled))
        with Publisher(server) as publisher:
            publisher.send(filled, b"same")
    move_all(after, server, target, filled)
    assert kept(target, filled) == SENT + [(b"same", None, {})] * 4


def test_move_that_is_not_acknowledged_is_not_repeated(
    server: str, target: str, filled: str
) -> None:
    with moving(Move, server, target, filled) as move:
        move.begin()
        assert move.step()
    assert len(kept(server, filled)) == len(SENT)
    assert move_all(ComesLate, server, target, filled) == 0
    assert kept(target, filled) == SENT


def test_move_sends_again_under_the_number_that_the_server_knows(
    server: str, target: str, filled: str
) -> None:
    die(DiesAfterSending, server, target, filled)
    with Publisher(server) as publisher:
        publisher.send(filled, b"later")
    move_all(LooksTooEarly, server, target, filled)
    assert kept(target, filled) == [*SENT, (b"later", None, {})]


@pytest.mark.parametrize("after", [Move, ComesLate])
def test_move_finds_what_it_stored_among_what_others_sent(
    server: str, target: str, filled: str, after: type[Move]
) -> None:
    die(DiesAfterSending, server, target, filled)
    with Publisher(target) as publisher:
        publisher.send(filled, b"of somebody else")
    assert move_all(after, server, target, filled) == 0
    assert kept(target, filled) == [*SENT, (b"of somebody else", None, {})]


def test_move_stores_what_is_not_among_what_others_sent(
    server: str, target: str, filled: str
) -> None:
    die(DiesBeforeSending, server, target, filled)
    with Publisher(target) as publisher:
        publisher.send(filled, b"of somebody else")
    assert move_all(ComesLate, server, target, filled) == len(SENT)
    assert kept(target, filled) == [(b"of somebody else", None, {}), *SENT]


def read_all(target: str, topic: str) -> None:
    """Read what there is, so that it is gone."""
    with Subscriber(target, "billing") as subscriber:
        subscriber.subscribe(topic, start="earliest")
        subscriber.pull(topic, 1000).ack()
    assert kept(target, topic) == []


def test_move_knows_by_their_number_messages_that_were_read(
    server: str, target: str, filled: str
) -> None:
    die(DiesAfterSending, server, target, filled)
    read_all(target, filled)
    assert move_all(ComesLate, server, target, filled) == 0
    assert kept(target, filled) == []


def test_move_does_not_guess(server: str, target: str, filled: str) -> None:
    die(DiesAfterSending, server, target, filled)
    with Publisher(target) as publisher:
        publisher.send(filled, b"of somebody else")
    read_all(target, filled)
    with pytest.raises(OutcomeUnknown) as raised:
        move_all(ComesLate, server, target, filled)
    assert f"{len(SENT)} messages of '{filled}' from 0 on" in raised.value.message
    assert f"subscription seek {filled} {SUBSCRIBER} --to {len(SENT)} -s" in raised.value.hint
    with Admin(server) as admin:
        admin.seek(filled, SUBSCRIBER, len(SENT))
    assert move_all(ComesLate, server, target, filled) == 0


def test_move_sends_again_if_told_that_nothing_was_stored(
    server: str, target: str, filled: str
) -> None:
    # What is moved before that is not acknowledged when it is killed.
    with moving(Move, server, target, filled) as move:
        move.begin()
        assert move.step()
    with Publisher(server) as publisher, Publisher(target) as elsewhere:
        publisher.send(filled, b"later")
        die(DiesBeforeSending, server, target, filled)
        elsewhere.send(filled, b"of somebody else")
        read_all(target, filled)
        elsewhere.send(filled, b"unread")
        with pytest.raises(OutcomeUnknown) as raised:
            move_all(ComesLate, server, target, filled)
    assert f"mbctl topic purge {filled}.moving -s {target}" in raised.value.hint
    with Admin(target) as admin:
        admin.purge_topic(f"{filled}.moving")
    assert move_all(ComesLate, server, target, filled) == 1
    assert [payload for payload, _, _ in kept(target, filled)] == [b"unread", b"later"]


def test_two_moves_at_once_find_each_other_out(server: str, target: str, filled: str) -> None:
    with (
        moving(Move, server, target, filled) as one,
        moving(Move, server, target, filled) as two,
    ):
        one.begin()
        two.begin()
        assert two.step()
        with pytest.raises(InvalidArgument, match="another move writes to"):
            one.step()
    assert move_all(ComesLate, server, target, filled) == 0
    assert kept(target, filled) == SENT


def test_move_acts_on_the_note_that_somebody_acted_upon(
    server: str, target: str, filled: str
) -> None:
    with (
        moving(Move, server, target, filled) as one,
        moving(Move, server, target, filled) as two,
    ):
        one.begin()
        two.begin()
        assert two.step()
        with Publisher(server) as publisher:
            publisher.send(filled, b"later")
        # It has written down more messages under the number that the other has used.
        with pytest.raises(InvalidArgument, match="another move writes to"):
            one.step()
    assert move_all(Move, server, target, filled) == 1
    assert kept(target, filled) == [*SENT, (b"later", None, {})]


def test_move_goes_on_after_the_target_was_full(server: str, target: str, topic: str) -> None:
    with Publisher(server) as publisher, Publisher(target) as elsewhere:
        for each in (publisher, elsewhere):
            each.create_topic(topic, max_messages=3)
        publisher.send_many(topic, [b"1", b"2", b"3"])
        assert move_all(Move, server, target, topic) == 3
        publisher.send(topic, b"4")
        for _ in range(2):
            with pytest.raises(TopicFull):
                move_all(Move, server, target, topic)
    read_all(target, topic)
    assert move_all(Move, server, target, topic) == 1
    assert kept(target, topic) == [(b"4", None, {})]


def test_move_keeps_off_messages_that_it_has_not_put_there(
    server: str, target: str, filled: str
) -> None:
    with Publisher(target) as publisher:
        publisher.create_topic(filled)
        publisher.send(filled, b"mine")
    with pytest.raises(TopicExists, match="no move has put there"):
        move_all(Move, server, target, filled)
    assert kept(target, filled) == [(b"mine", None, {})]


def test_move_does_not_mix_two_topics_of_one_name(server: str, target: str, filled: str) -> None:
    move_all(Move, server, target, filled)
    with Publisher(server) as publisher:
        publisher.delete_topic(filled)
        publisher.create_topic(filled)
        publisher.send(filled, b"of another topic")
    with pytest.raises(InvalidArgument, match="another topic of this name was moved"):
        move_all(Move, server, target, filled)
    assert kept(target, filled) == SENT


def test_move_copies_messages_as_large_as_they_may_be(server: str, target: str, topic: str) -> None:
    large = os.urandom(1024 * 1024)
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        for number in range(6):
            publisher.send(topic, large, key=b"%d" % number)
    assert move_all(Move, server, target, topic) == 6
    with Admin(target) as admin:
        shown = list(admin.peek(topic, "earliest", 10))
    assert [(message.payload == large, message.key) for message in shown] == [
        (True, b"%d" % number) for number in range(6)
    ]


def test_move_says_what_was_gone_before_it_came(server: str, target: str, topic: str) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic, max_messages=2, when_full="drop_oldest")
        publisher.send(topic, b"0")
        with moving(Move, server, target, topic) as move:
            move.begin()
            assert move.step()
            move.acknowledge()
            for number in range(1, 6):
                publisher.send(topic, b"%d" % number)
            assert move.step()
            assert move.moved.gone == 3
    assert [payload for payload, _, _ in kept(target, topic)] == [b"4", b"5"]
