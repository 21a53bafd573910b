"""What errors say: what happened, and what to do about it, also after crossing the wire."""

import pickle

import pytest

from mbctl import errors

SAID = [
    (
        errors.StorageCorrupt(path="/data/snapshot", position=0, reason="it is missing"),
        "/data/snapshot is damaged: it is missing (at byte 0)",
        "mbctl repair --accept-loss /data",
    ),
    (
        errors.NewerFormat(what="a segment", found=7, known=1),
        "a segment has format 7, and this mbctl reads up to 1",
        "the version of mbctl that last used this directory",
    ),
    (
        errors.BackupDamaged(path="/data/broker.backup", reason="it is not a tar file"),
        "/data/broker.backup cannot be restored: it is not a tar file",
        "use another backup",
    ),
    (
        errors.StorageFailed(path="/data/0000000001.segment", reason="Input/output error"),
        "/data/0000000001.segment cannot be written: Input/output error; the server stops",
        "what was acknowledged is kept",
    ),
    (
        errors.DataLoss(topic="orders", first=3, next=7),
        "topic 'orders': the messages from 3 to before 7 are damaged on disk",
        "they were passed over; pull again for what comes after them",
    ),
    (
        errors.DiskFull(size=900, limit=1000),
        "the server has no room: it holds 900 of at most 1000 bytes",
        "make room on the disk",
    ),
    (
        errors.NotSubscribed(topic="orders", subscriber="billing"),
        "subscriber 'billing' is not subscribed to topic 'orders'",
        "mbctl subscribe orders --name billing",
    ),
    (
        errors.NotSubscribed(topic="orders", subscriber="~0123"),
        "subscriber '~0123' is not subscribed to topic 'orders'",
        "subscribe to it first",
    ),
    (
        errors.OutcomeUnknown(what="the send to 'orders'"),
        "it is unknown whether the send to 'orders' took effect",
        "look before you send it again",
    ),
]


@pytest.mark.parametrize(("error", "message", "hint"), SAID, ids=lambda v: getattr(v, "code", None))
def test_error_says_what_happened_and_what_to_do(
    error: errors.MbctlError, message: str, hint: str
) -> None:
    assert error.message == message
    assert hint in error.hint
    assert "?" not in error.message + error.hint


@pytest.mark.parametrize(("error", "message", "hint"), SAID, ids=lambda v: getattr(v, "code", None))
def test_error_says_the_same_wherever_it_is_read(
    error: errors.MbctlError, message: str, hint: str
) -> None:
    for copy in (
        errors.from_wire(error.code, error.details),
        pickle.loads(pickle.dumps(error)),
    ):
        assert type(copy) is type(error)
        assert (copy.message, copy.hint) == (error.message, error.hint)


def test_error_of_a_newer_peer_shows_what_is_not_known_of_it() -> None:
    assert errors.StorageCorrupt().message == "? is damaged: ? (at byte ?)"


@pytest.mark.parametrize(
    ("topic", "hint"),
    [
        ("orders.v2-x", "create it with: mbctl topic create orders.v2-x"),
        ("2nd", "create it with: mbctl topic create 2nd"),
        ("orders\n", "see: mbctl topic list"),
        ("", "see: mbctl topic list"),
    ],
)
def test_hint_names_no_topic_that_cannot_be(topic: str, hint: str) -> None:
    assert errors.TopicNotFound(topic=topic).hint == hint
