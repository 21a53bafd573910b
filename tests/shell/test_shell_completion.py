"""Completion and the toolbar's syntax: what is offered for the text before the cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl.shell.commands import KINDS, Kind
from mbctl.shell.completion import CANDIDATES_MAX, LiveNames, complete, syntax_for

LIVE = LiveNames(
    topics={"orders": "3 messages", "old-orders": "empty", "clicks": "9 messages"},
    subscribed={"orders": "2 unread"},
)

CASES: list[tuple[Kind, str, list[str]]] = [
    ("publisher", "cr", ["createTopic"]),
    ("publisher", "  cr", ["createTopic"]),
    ("publisher", "create-t", ["createTopic"]),
    ("publisher", "ct", ["createTopic"]),
    ("publisher", "dt", ["deleteTopic"]),
    ("publisher", "s", ["send", "status"]),
    ("publisher", "pull", []),
    ("publisher", "pull ", []),
    ("publisher", "xyzzy ", []),
    ("publisher", "# s", []),
    ("publisher", "send ", ["orders", "old-orders", "clicks"]),
    ("publisher", "send or", ["orders", "old-orders"]),
    ("publisher", "send OLD", ["old-orders"]),
    ("publisher", "send -", ["--key", "-H", "--file", "--hex"]),
    ("publisher", "send --", ["--key", "--file", "--hex"]),
    ("publisher", "send --k", ["--key"]),
    ("publisher", "send --key", ["--key"]),
    ("publisher", "send --key ", []),
    ("publisher", "send --key or", []),
    ("publisher", "send --key k -", ["-H", "--file", "--hex"]),
    ("publisher", "send -H a=b -", ["--key", "-H", "--file", "--hex"]),
    ("publisher", "send --key k cl", ["clicks"]),
    ("publisher", "send --key 'two words' cl", ["clicks"]),
    ("publisher", "send orders ", []),
    ("publisher", "send orders or", []),
    ("publisher", "send orders -", []),
    ("publisher", "send --file f orders ", []),
    ("publisher", "deleteTopic cl", ["clicks"]),
    ("publisher", "createTopic or", []),
    ("publisher", "createTopic x --max-b", ["--max-bytes"]),
    ("publisher", "help cr", ["createTopic"]),
    ("publisher", "topics ", []),
    ("publisher", "topics -", []),
    ("subscriber", "sub", ["subscribe", "subscriptions"]),
    ("subscriber", "subscribe ", ["orders", "old-orders", "clicks"]),
    ("subscriber", "subscribe orders --from ", ["earliest", "new"]),
    ("subscriber", "subscribe orders --from=e", ["earliest", "new"]),
    ("subscriber", "subscribe --from new or", ["orders", "old-orders"]),
    ("subscriber", "unsubscribe ", ["orders"]),
    ("subscriber", "pull ", ["orders"]),
    ("subscriber", "pull -n ", []),
    ("subscriber", "pull -n 5 ", ["orders"]),
    ("subscriber", "pull orders ", []),
    ("subscriber", "pull orders --", ["--wait", "--no-ack", "--format", "--full"]),
    ("subscriber", "sbscr", ["subscribe", "subscriptions", "unsubscribe", "registerSubscriber"]),
    ("publisher", "send oo", ["old-orders"]),
    ("publisher", "send --ky", ["--key"]),
    ("publisher", "send zz", []),
    ("publisher", "use cl", ["clicks"]),
    ("publisher", "watch 2 topi", ["topics"]),
    ("subscriber", "watch 2 pull or", ["orders"]),
    ("subscriber", "watch ", []),
    ("subscriber", "follow orders ", ["orders"]),
    ("subscriber", "help un", ["unsubscribe"]),
]


@pytest.mark.parametrize(("kind", "before", "offered"), CASES)
def test_completion_offers_what_can_stand_there(
    kind: Kind, before: str, offered: list[str]
) -> None:
    assert [candidate.text for candidate in complete(kind, before, LIVE)] == offered


def test_completion_of_nothing_offers_every_verb() -> None:
    assert len(complete("subscriber", "", LIVE)) == 22


@pytest.mark.parametrize(
    ("before", "replaces"), [("send or", 2), ("send ", 0), ("sen", 3), ("help --x=c", 5)]
)
def test_candidate_replaces_the_word_being_typed(before: str, replaces: int) -> None:
    for candidate in complete("publisher", before, LIVE):
        assert candidate.replaces == replaces


def test_attached_value_is_completed_without_its_flag() -> None:
    candidates = complete("subscriber", "subscribe orders --from=ea", LIVE)
    assert [(candidate.text, candidate.replaces) for candidate in candidates] == [("earliest", 2)]


def test_candidate_tells_about_its_name() -> None:
    assert complete("publisher", "send clicks", LIVE)[0].about == "9 messages"


def test_many_topics_are_bounded() -> None:
    live = LiveNames(topics={f"topic-{number}": "" for number in range(10_000)})
    assert len(complete("publisher", "send t", live)) == CANDIDATES_MAX


@pytest.mark.parametrize(
    ("kind", "text", "syntax"),
    [
        ("subscriber", "pull -n 5", "pull [OPTIONS] [TOPIC]"),
        ("subscriber", "FOLLOW", "follow [--format F] [--full] [TOPIC...]"),
        ("subscriber", "watch 2 ack", "ack"),
        ("subscriber", "help nack", "nack [--delay S]"),
        ("subscriber", "help ", "help [VERB]"),
        ("subscriber", "help xyzzy", "help [VERB]"),
        ("subscriber", "watch 2 xyzzy", "watch SECONDS VERB..."),
        (
            "publisher",
            "send orders {}",
            "send [--key K] [-H N=V] [--file F | --hex HEX] TOPIC MESSAGE",
        ),
        ("publisher", "pull", ""),
        ("publisher", "xyzzy", ""),
        ("publisher", "", ""),
        ("publisher", "# send", ""),
    ],
)
def test_syntax_is_that_of_the_verb_being_typed(kind: Kind, text: str, syntax: str) -> None:
    assert syntax_for(kind, text) == syntax


@given(kind=st.sampled_from(KINDS), before=st.text(st.characters(exclude_categories=())))
def test_completion_takes_any_text(kind: Kind, before: str) -> None:
    for verb in ("", "send ", "pull ", "subscribe --from "):
        for candidate in complete(kind, verb + before, LIVE):
            assert 0 <= candidate.replaces <= len(verb + before)


@pytest.mark.parametrize(
    ("cursor", "syntax"),
    [(0, "watch SECONDS VERB..."), (7, "watch SECONDS VERB..."), (8, "topics"), (14, "topics")],
)
def test_syntax_is_that_of_the_verb_at_the_cursor(cursor: int, syntax: str) -> None:
    assert syntax_for("publisher", "watch 5 topics", cursor) == syntax
