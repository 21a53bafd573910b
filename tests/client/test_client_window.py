"""The sends that wait for their answers."""

import pytest

from mbctl import Receipt, TopicNotFound
from mbctl.client.window import SendWindow
from mbctl.model import Limits


@pytest.fixture
def window() -> SendWindow:
    """An empty window."""
    return SendWindow()


def check_empty(window: SendWindow) -> None:
    """Assert that nothing is kept."""
    assert len(window) == 0
    assert list(window) == []
    assert window._by_id == {}
    assert window._bytes == 0


def test_sends_are_numbered_from_one_and_kept_in_order(window: SendWindow) -> None:
    sends = [window.add("t", b"x", 1) for _ in range(3)]
    assert [send.sequence for send in sends] == [1, 2, 3]
    assert list(window) == sends
    assert all(send in window for send in sends)


def test_an_answer_takes_a_send_out_and_lets_its_messages_go(window: SendWindow) -> None:
    send = window.add("t", b"xyz", 3)
    window.written(send, 10, now=5.0)
    window.sent(10, 7, 3)
    assert send.answer == Receipt("t", 7, 3)
    assert send.batch == b""
    assert send not in window
    check_empty(window)


def test_a_refused_send_keeps_its_messages(window: SendWindow) -> None:
    send = window.add("t", b"xyz", 3)
    window.written(send, 10, now=5.0)
    window.answer(10, TopicNotFound(topic="t"))
    assert isinstance(send.answer, TopicNotFound)
    assert send.batch == b"xyz"
    check_empty(window)


def test_a_send_written_again_is_answered_under_its_new_id_only(window: SendWindow) -> None:
    send = window.add("t", b"x", 1)
    window.written(send, 10, now=5.0)
    window.written(send, 11, now=6.0)
    window.sent(10, 0, 1)
    assert send.answer is None
    window.sent(11, 0, 1)
    assert send.answer == Receipt("t", 0, 1)
    check_empty(window)


def test_the_age_counts_from_the_first_attempt(window: SendWindow) -> None:
    send = window.add("t", b"x", 1)
    assert send.age_ms(now=100.0) == 0
    window.written(send, 10, now=5.0)
    window.written(send, 11, now=6.0)
    assert send.age_ms(now=7.5) == 2500


def test_a_send_that_was_given_up_is_not_answered_any_more(window: SendWindow) -> None:
    send = window.add("t", b"x", 1)
    window.written(send, 10, now=5.0)
    window.drop(send)
    window.drop(send)
    window.sent(10, 0, 1)
    assert send.answer is None
    check_empty(window)


def test_an_answer_to_nothing_known_changes_nothing(window: SendWindow) -> None:
    send = window.add("t", b"x", 1)
    window.sent(99, 0, 1)
    window.answer(0, TopicNotFound(topic="t"))
    assert send in window


def test_the_window_is_full_at_its_count(window: SendWindow) -> None:
    limits = Limits(sends_in_flight=2)
    window.add("t", b"x", 1)
    assert not window.is_full(limits)
    send = window.add("t", b"x", 1)
    assert window.is_full(limits)
    window.drop(send)
    assert not window.is_full(limits)


def test_the_window_is_full_above_half_of_what_a_connection_may_have_in_flight(
    window: SendWindow,
) -> None:
    limits = Limits(connection_bytes=20)
    window.add("t", bytes(10), 1)
    assert not window.is_full(limits)
    window.add("t", bytes(1), 1)
    assert window.is_full(limits)
