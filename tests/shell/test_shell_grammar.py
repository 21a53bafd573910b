"""The grammar: what a line means, and what is said about a line that means nothing."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mbctl.shell import commands as c
from mbctl.shell.commands import KINDS, Kind
from mbctl.shell.grammar import InvalidCommand, Unfinished, flaw, parse
from mbctl.shell.verbs import VERBS, Verb, verbs_of

PUBLISHER_LINES = [
    ("createTopic orders", c.CreateTopic("orders")),
    ("create-topic orders", c.CreateTopic("orders")),
    ("CREATE_TOPIC orders", c.CreateTopic("orders")),
    ("  createtopic\torders  ", c.CreateTopic("orders")),
    ("createTopic orders\r", c.CreateTopic("orders")),
    ("createTopic orders # the shop's", c.CreateTopic("orders")),
    ("createTopic --max-messages 5 orders", c.CreateTopic("orders", max_messages=5)),
    ("createTopic orders --max-messages=5", c.CreateTopic("orders", max_messages=5)),
    ("createTopic orders --max-bytes 64K", c.CreateTopic("orders", max_bytes=65536)),
    ("deleteTopic orders", c.DeleteTopic("orders")),
    ("deleteTopic 'orders'", c.DeleteTopic("orders")),
    ("deleteTopic -- orders", c.DeleteTopic("orders")),
    ("registerPublisher", c.Register()),
    ("registerPublisher till-3", c.Register("till-3")),
    ("topics", c.Topics()),
    ("status", c.Status()),
    ("help", c.Help()),
    ("help create-topic", c.Help("createTopic")),
    ("help pull", c.Help("pull")),
    ("history", c.History()),
    ("clear", c.Clear()),
    ("exit", c.Exit()),
    ("QUIT", c.Exit()),
    ("", None),
    (" \t\r", None),
    ("# send orders x", None),
    ("   # send orders x", None),
]

SEND_LINES = [
    ("""send orders {"id": 1, "note": "it's"}""", b"""{"id": 1, "note": "it's"}"""),
    ("send orders two words ", b"two words "),
    ("send orders   led by two spaces", b"  led by two spaces"),
    ("send orders \tled by a tab", b"\tled by a tab"),
    ("send orders # not a comment", b"# not a comment"),
    ("send orders --key k", b"--key k"),
    ("send orders 'quoted'", b"'quoted'"),
    ('send orders "', b'"'),
    ("send orders ", b""),
    ("send orders crlf\r", b"crlf\r"),
    ("send orders a\x0bb\x85c\u2028d", "a\x0bb\x85c\u2028d".encode()),
    ("send orders \udcffraw\udc80", b"\xffraw\x80"),
    ("send    orders x", b"x"),
    ("send -- orders x", b"x"),
    ("Send orders caf\u00e9 \u20ac", "caf\u00e9 \u20ac".encode()),
]

SEND_OPTION_LINES = [
    ("send --key k orders x", c.Send("orders", b"x", key=b"k")),
    ("send --key= orders x", c.Send("orders", b"x", key=b"")),
    ("send --key 'a b' orders x", c.Send("orders", b"x", key=b"a b")),
    ('send --key "it\'s" orders x', c.Send("orders", b"x", key=b"it's")),
    ("send --key #1 orders x", c.Send("orders", b"x", key=b"#1")),
    ("send --key --key orders x", c.Send("orders", b"x", key=b"--key")),
    ("send --key \udcff orders x", c.Send("orders", b"x", key=b"\xff")),
    (
        "send -H a=1 -Hb=2 -H 'c=x y=z' orders x",
        c.Send("orders", b"x", headers={"a": "1", "b": "2", "c": "x y=z"}),
    ),
    ("send -H a= orders x", c.Send("orders", b"x", headers={"a": ""})),
    ("send --hex 00ff orders", c.Send("orders", b"\x00\xff")),
    ("send --hex '00 FF' orders  ", c.Send("orders", b"\x00\xff")),
    ("send --hex= orders", c.Send("orders", b"")),
    ("send --file 'my file' --key k orders", c.Send("orders", key=b"k", file="my file")),
]

SUBSCRIBER_LINES = [
    ("registerSubscriber billing", c.Register("billing")),
    ("subscribe orders", c.Subscribe("orders")),
    ("subscribe orders --from NEW", c.Subscribe("orders", start="new")),
    ("subscribe --from earliest orders", c.Subscribe("orders", start="earliest")),
    ("subscribe orders --from 0", c.Subscribe("orders", start=0)),
    ("subscribe orders --ack-wait 0.5", c.Subscribe("orders", ack_wait=0.5)),
    ("unsubscribe orders", c.Unsubscribe("orders")),
    ("pull", c.Pull()),
    ("pull orders -n 5 --wait 1.5", c.Pull("orders", max_messages=5, wait=1.5)),
    ("pull -n5 --no-ack", c.Pull(max_messages=5, no_ack=True)),
    ("pull --wait 0 orders", c.Pull("orders", wait=0.0)),
    ("ack", c.Ack()),
    ("nack", c.Nack()),
    ("nack --delay .5", c.Nack(delay=0.5)),
    ("follow", c.Follow()),
    ("follow orders clicks", c.Follow(("orders", "clicks"))),
    ("subscriptions", c.Subscriptions()),
]

REFUSED_LINES: list[tuple[Kind, str, str, int]] = [
    ("publisher", "crateTopic orders", "unknown verb 'crateTopic'; did you mean createTopic?", 1),
    ("publisher", "  xyzzy", "unknown verb 'xyzzy' (column 3); help lists the verbs", 3),
    ("publisher", "pull", "pull is a verb of the subscriber shell", 1),
    ("subscriber", "send orders x", "send is a verb of the publisher shell", 1),
    ("subscriber", "SEND", "start that with: mbctl publisher", 1),
    ("publisher", "send", "send needs TOPIC (column 5); write: send [--key K]", 5),
    ("publisher", "send orders", "send needs MESSAGE after one space", 12),
    ("publisher", "send orders\tx", "send needs MESSAGE after one space", 14),
    ("publisher", "send orders\rx", "send needs MESSAGE after one space", 14),
    ("publisher", "send or!ders x", "'or!ders' is not a valid name", 6),
    ("publisher", "send .orders x", "use 1 to 200 of", 6),
    (
        "publisher",
        "send --kye k orders x",
        "send has no option '--kye' (column 6); did you mean",
        6,
    ),
    ("publisher", "send --key", "--key needs a value K", 11),
    ("publisher", "send --key a --key b orders x", "give --key only once", 20),
    ("publisher", "send --key it's orders x", "a quote is not closed", 12),
    ("publisher", "send -H a orders x", "-H: 'a' is not name=value", 9),
    ("publisher", "send -H =a orders x", "-H: '=a' is not name=value", 9),
    ("publisher", "send -H a=1 -H a=2 orders x", "the header 'a' is given twice", 16),
    ("publisher", "send -H a=\udcff orders x", "is not text in UTF-8", 9),
    ("publisher", "send --hex 0 orders", "--hex: '0' is not made of hexadecimal pairs", 12),
    ("publisher", "send --hex 00 orders x", "'x' is too much", 22),
    ("publisher", "send --hex 00 --file f orders", "give --file or --hex only once", 22),
    ("publisher", "send --file '' orders", "--file: '' is not the path of a file", 13),
    ("publisher", "send orders \ud800", "a character that UTF-8 cannot carry", 13),
    ("publisher", "createTopic", "createTopic needs NAME", 12),
    ("publisher", "createTopic a b", "'b' is too much (column 15)", 15),
    ("publisher", "createTopic a --max-messages 0", "'0' is not a whole number from 1 on", 30),
    ("publisher", "createTopic a --max-messages 1_0", "not a whole number", 30),
    ("publisher", f"createTopic a --max-messages {'9' * 19}", "not a whole number", 30),
    ("publisher", "createTopic a --max-bytes lots", "is not a size", 27),
    ("publisher", f"createTopic a --max-bytes {'9' * 400}.0", "is not a size", 27),
    ("publisher", "topics all", "'all' is too much (column 8); write: topics", 8),
    ("publisher", "help pul", "VERB: 'pul' is not a verb", 6),
    ("subscriber", "pull orders --no-ack=yes", "--no-ack takes no value", 13),
    ("subscriber", "pull orders -n -5", "-n: '-5' is not a whole number", 16),
    ("subscriber", "pull --wait nan", "--wait: 'nan' is not a number of seconds", 13),
    ("subscriber", "pull --wait inf", "--wait: 'inf' is not a number of seconds", 13),
    ("subscriber", "pull a b", "'b' is too much", 8),
    ("subscriber", "subscribe a --from -5", "is not new, earliest, an offset, a time", 20),
    ("subscriber", "subscribe a --ack-wait 0", "ack_wait must be above 0", 24),
]


@pytest.mark.parametrize(("line", "command"), PUBLISHER_LINES + SEND_OPTION_LINES)
def test_publisher_line_means_its_command(line: str, command: c.Command | None) -> None:
    assert parse("publisher", line) == command


@pytest.mark.parametrize(("line", "message"), SEND_LINES)
def test_send_takes_the_rest_of_the_line_as_it_is(line: str, message: bytes) -> None:
    assert parse("publisher", line) == c.Send("orders", message)


@pytest.mark.parametrize(("line", "command"), SUBSCRIBER_LINES)
def test_subscriber_line_means_its_command(line: str, command: c.Command) -> None:
    assert parse("subscriber", line) == command


@pytest.mark.parametrize(("kind", "line", "said", "column"), REFUSED_LINES)
def test_refused_line_says_what_and_where(kind: Kind, line: str, said: str, column: int) -> None:
    with pytest.raises(InvalidCommand) as caught:
        parse(kind, line)
    error = caught.value
    assert said in f"{error.message}; {error.hint}"
    assert error.column == column
    assert "\n" not in error.message + error.hint


def test_error_about_a_long_word_stays_short() -> None:
    with pytest.raises(InvalidCommand) as caught:
        parse("publisher", "topics " + "x" * 1_000_000)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_example_of_each_verb_is_a_command_of_that_verb(verb: Verb) -> None:
    for kind in verb.kinds:
        assert type(parse(kind, verb.example)) is verb.command


def test_verbs_of_the_contract_are_all_there() -> None:
    both = ["peek", "last", "use", "watch", "topics", "status", "help", "history", "clear", "exit"]
    publisher = ["registerPublisher", "createTopic", "send", "purgeTopic", "deleteTopic"]
    subscriber = [
        *("registerSubscriber", "subscribe", "unsubscribe", "pull", "ack", "nack"),
        *("extend", "seek", "release", "drop", "follow", "subscriptions"),
    ]
    assert [verb.name for verb in verbs_of("publisher")] == publisher + both
    assert [verb.name for verb in verbs_of("subscriber")] == subscriber + both


# Words that reach deep into the grammar, so that random lines are not all unknown verbs.
WORDS = st.sampled_from(
    [verb.name for verb in VERBS]
    + [option.flag for verb in VERBS for option in verb.options]
    + ["orders", "-", "--", "=", "'", '"', "#", " ", "  ", "\t", "\r", "5", "-n5", "-Ha=b"]
)
LINES = st.lists(WORDS | st.text(), max_size=8).map(" ".join)
ANY_CHARACTER = st.characters(exclude_categories=())


@given(kind=st.sampled_from(KINDS), line=LINES | st.text(ANY_CHARACTER))
def test_parse_raises_nothing_but_its_own_error(kind: Kind, line: str) -> None:
    meant: c.Command | InvalidCommand | None
    try:
        meant = parse(kind, line)
    except InvalidCommand as error:
        meant = error
    if isinstance(meant, InvalidCommand):
        assert 1 <= meant.column <= len(line) + 1
        assert meant.message
    else:
        assert meant is None or any(type(meant) is verb.command for verb in verbs_of(kind))


@given(message=st.binary().filter(lambda message: b"\n" not in message))
@example(message=b"")
@example(message=b" \xe2\x80\xa8 \x85 \x0b \r")
def test_message_survives_any_bytes_without_a_newline(message: bytes) -> None:
    line = (b"send orders " + message).decode("utf-8", "surrogateescape")
    assert parse("publisher", line) == c.Send("orders", message)


@given(key=st.text(min_size=1).filter(lambda key: not set(key) & set("'")))
def test_quoted_key_survives_any_text_without_that_quote(key: str) -> None:
    command = parse("publisher", f"send --key '{key}' orders x")
    assert command == c.Send("orders", b"x", key=key.encode())


# --- the topic in use ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "line", "command"),
    [
        ("publisher", "send . hi", c.Send("orders", b"hi")),
        ("publisher", "send . . .", c.Send("orders", b". .")),
        ("publisher", "deleteTopic .", c.DeleteTopic("orders")),
        ("subscriber", "follow . clicks", c.Follow(("orders", "clicks"))),
        ("subscriber", "follow on .", c.Follow(("on", "orders"))),
    ],
)
def test_dot_is_the_topic_in_use(kind: Kind, line: str, command: object) -> None:
    assert parse(kind, line, "orders") == command


def test_dot_without_a_topic_in_use_is_refused() -> None:
    with pytest.raises(InvalidCommand, match="no topic is in use for the dot") as raised:
        parse("publisher", "send . hi")
    assert raised.value.column == 6


@pytest.mark.parametrize("line", ["send '.' hi", "send .x hi"])
def test_dot_is_only_a_dot_by_itself(line: str) -> None:
    with pytest.raises(InvalidCommand, match="is not a valid name"):
        parse("publisher", line, "orders")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("watch 2 topics", c.Watch(2.0, "topics")),
        ("watch .5 peek orders -n 1", c.Watch(0.5, "peek orders -n 1")),
        ("last", c.Last()),
        ("last 3", c.Last(3)),
        ("use orders", c.Use("orders")),
        ("use", c.Use()),
    ],
)
def test_verbs_for_looking_are_read(line: str, command: object) -> None:
    assert parse("subscriber", line) == command


# --- while typing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("crateTopic orders", 1),
        ("send --kye k orders x", 6),
        ("createTopic --max-messages none orders", 28),
        ("pull orders", 1),
        ("topics now and", 8),
    ],
)
def test_flaw_of_a_line_is_known_before_it_ends(line: str, column: int) -> None:
    found = flaw("publisher", line)
    assert found is not None
    assert found.column == column


@pytest.mark.parametrize(
    "line",
    ["", "cra", "send", "send orders", "send --key", "send --key 'a b", "send --ke", "topics no"],
)
def test_line_that_may_still_become_right_has_no_flaw(line: str) -> None:
    assert flaw("publisher", line) is None


def test_unfinished_line_is_told_from_a_wrong_one() -> None:
    with pytest.raises(Unfinished):
        parse("publisher", "send orders")
    with pytest.raises(InvalidCommand) as raised:
        parse("publisher", "send or!ders x")
    assert not isinstance(raised.value, Unfinished)
