"""docs/protocol.md against the code: its tables, and its bytes in both directions."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from inspect import get_annotations
from pathlib import Path
from typing import Any, Self, get_args

import msgspec
import pytest
from msgspec import inspect

from mbctl import batch as batches
from mbctl import errors, model
from mbctl.batch import Columns, ReadColumns
from mbctl.wire import messages as wire
from mbctl.wire.frames import frame
from mbctl.wire.session import ClientSession, Fatal, Rejected, ServerSession

DOCUMENT = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")

Entry = dict[str, str]


def entries(kind: str) -> Iterator[Entry]:
    """The fenced blocks of ``kind``, taken apart: the first line's words, ``=`` and ``hex``."""
    for block in re.findall(rf"^```{kind}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE):
        entry: Entry = {}
        for line in re.sub(r"\n    +", " ", block).splitlines():
            word, _, rest = line.partition(" ")
            if word in ("=", "hex"):
                entry[word] = rest
            else:
                if entry:
                    yield entry
                entry = {"who": word, "message": rest}
            if word == "hex":
                yield entry
                entry = {}
        assert not entry, f"a block without bytes: {block}"


def value_of(notation: str) -> Any:
    """What the page writes as JSON with h'...' for bytes."""
    text = re.sub(r"h'([0-9a-f]*)'", r'{"\\u0000": "\1"}', notation)
    return json.loads(
        text,
        object_hook=lambda o: bytes.fromhex(o["\x00"]) if "\x00" in o else o,
    )


def bytes_of(entry: Entry) -> bytes:
    return bytes.fromhex(entry["hex"].replace(" ", ""))


def packed(notation: str) -> bytes:
    return msgspec.msgpack.encode(value_of(notation))


def named(kind: str) -> list[Any]:
    """The entries of ``kind`` as parameters, named after what they say."""
    found = list(entries(kind))
    assert found, f"the page has no {kind} blocks"
    return [pytest.param(entry, id=f"{n}-{entry['message'][:30]}") for n, entry in enumerate(found)]


def session_for(entry: Entry) -> ServerSession | ClientSession:
    """A session in the state in which the entry's frame may come."""
    opening = value_of(entry["message"])[0] in ("hello", "welcome")
    if entry["who"] == "client":
        return ServerSession() if opening else open_server()
    return ClientSession() if opening else open_client()


def open_server() -> ServerSession:
    session = ServerSession()
    session.feed(wire.encode(wire.Hello(1, 1, 1, "test")))
    assert session.is_open
    return session


def open_client() -> ClientSession:
    session = ClientSession()
    session.feed(wire.encode(wire.Welcome(1, 1, "0", "local", "memory", model.LIMITS)))
    assert session.is_open
    return session


def written(message: wire.Message) -> bytes:
    """``message`` as one frame; a ``pulled`` as the server writes it, with its batches packed."""
    if not isinstance(message, wire.Pulled):
        return wire.encode(message)
    pieces = [
        (piece.first, piece.timestamp, piece.deliveries, packed_batch(piece.batch))
        for piece in message.pieces
    ]
    buffers = wire.encode_pulled(message.id, message.topic_id, message.skipped, pieces)
    return b"".join(map(bytes, buffers))


def packed_batch(columns: ReadColumns) -> bytes:
    return batches.encode(columns.payloads, columns.keys, columns.header_sets())


def tags(union: object) -> set[str]:
    return {str(member.__struct_config__.tag) for member in get_args(union)}


# --- golden vectors -------------------------------------------------------------------------


@pytest.mark.parametrize("entry", named("vector"))
def test_vector_bytes_are_the_notation_packed(entry: Entry) -> None:
    content = packed(entry["message"])
    assert bytes_of(entry) == len(content).to_bytes(4, "big") + content
    assert msgspec.msgpack.decode(content) == value_of(entry["message"])


@pytest.mark.parametrize("entry", named("vector"))
def test_vector_is_read_and_written_back_as_the_same_bytes(entry: Entry) -> None:
    (event,) = session_for(entry).feed(bytes_of(entry))
    tag, id_, *fields = value_of(entry["message"])
    if tag == "error" and id_ == 0:
        assert isinstance(event, Fatal)
        assert [event.error.code, event.error.details] == fields
        event = wire.Error.of(0, event.error)
    assert isinstance(event, wire.Message)
    assert event.id == id_
    assert written(event) == bytes_of(entry)


def test_every_message_type_has_a_vector() -> None:
    requests = {value_of(e["message"])[0] for e in entries("vector") if e["who"] == "client"}
    replies = {value_of(e["message"])[0] for e in entries("vector") if e["who"] == "server"}
    assert requests == tags(wire.Request)
    assert replies == tags(wire.Reply)


def test_every_optional_field_has_a_vector_that_sets_it() -> None:
    vectors = [value_of(entry["message"]) for entry in entries("vector")]
    for request in get_args(wire.Request):
        info = inspect.type_info(request)
        assert isinstance(info, inspect.StructType)
        for position, field in enumerate(info.fields, start=1):
            if field.required:
                continue
            default = json.loads(json.dumps(msgspec.to_builtins(field.default)))
            set_to = [v[position] for v in vectors if v[0] == info.tag]
            assert any(value != default for value in set_to), (info.tag, field.name)


@pytest.mark.parametrize("entry", named("accepted"))
def test_accepted_bytes_mean_the_message(entry: Entry) -> None:
    if "=" in entry:
        assert bytes_of(entry) == frame(packed(entry["="]))
    (event,) = session_for(entry).feed(bytes_of(entry))
    assert isinstance(event, wire.Message)
    assert wire.encode(event) == frame(packed(entry["message"]))
    assert wire.encode(event) != bytes_of(entry)


@pytest.mark.parametrize("entry", named("refused"))
def test_refused_bytes_are_answered_with_the_id_and_code(entry: Entry) -> None:
    if "=" in entry:
        assert bytes_of(entry) == frame(packed(entry["="]))
    rejected, after = open_server().feed(bytes_of(entry) + wire.encode(wire.Ping(9)))
    assert isinstance(rejected, Rejected)
    assert [rejected.id, rejected.error.code] == [int(entry["who"]), entry["message"]]
    assert after == wire.Ping(9)


CLOSING = [
    bytes.fromhex(block)
    for block in re.findall(r"^```closing\nhex ([0-9a-f ]+)\n```", DOCUMENT, re.MULTILINE)
]


@pytest.mark.parametrize("data", CLOSING, ids=bytes.hex)
def test_closing_bytes_end_the_session(data: bytes) -> None:
    session = open_server()
    (event,) = session.feed(data + wire.encode(wire.Ping(9)))
    assert isinstance(event, Fatal)
    assert event.error.code == "ProtocolError"
    assert session.feed(wire.encode(wire.Ping(9))) == []


# --- the example conversation ---------------------------------------------------------------


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_conversation_is_understood_on_both_ends(size: int) -> None:
    talk = list(entries("talk"))
    for who, session in (("client", ServerSession()), ("server", ClientSession())):
        said = [entry for entry in talk if entry["who"] == who]
        stream = b"".join(map(bytes_of, said))
        events = [event for piece in pieces(stream, size) for event in session.feed(piece)]
        assert len(events) == len(said)
        for entry, event in zip(said[:-1], events[:-1], strict=True):
            assert isinstance(event, wire.Message)
            assert written(event) == frame(packed(entry["message"])) == bytes_of(entry)
        assert isinstance(events[-1], Fatal)


def test_conversation_answers_each_request_once() -> None:
    talk = [(e["who"], value_of(e["message"])) for e in entries("talk") if e["message"]]
    asked = [message[1] for who, message in talk if who == "client"]
    answered = [message[1] for who, message in talk if who == "server"]
    assert sorted(answered) == [0, *asked]


def test_conversation_ends_with_the_error_that_the_server_gives() -> None:
    *_, mistake, answer = entries("talk")
    (event,) = open_server().feed(bytes_of(mistake))
    assert isinstance(event, Fatal)
    assert wire.encode(wire.Error.of(0, event.error)) == bytes_of(answer)


# --- the same with a real server --------------------------------------------------------------


class Stranger:
    """A client that knows nothing but the page: a socket, and frames of generic values."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.stream = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.socket.close()

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> Any:
        """The next reply, or None at the end of the stream."""
        head = self.stream.read(4)
        if not head:
            return None
        return msgspec.msgpack.decode(self.stream.read(int.from_bytes(head, "big")))

    def open(self) -> None:
        self.write(bytes_of(next(entries("talk"))))
        assert self.read()[:3] == ["welcome", 1, 1]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server whose log may tell of protocol errors, but of nothing worse."""
    command = [sys.executable, "-m", "mbctl", "server", "--memory", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline().rpartition(":")[2])
    finally:
        server.terminate()
        _, log = server.communicate(timeout=20)
    assert server.returncode == 0, log
    assert "Traceback" not in log


TOPIC_ID = 1767225600000000
TIMESTAMP = 1767225600123456789


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with ``change`` made to everything within."""
    if isinstance(value, list):
        return [changed(inner, change) for inner in value]
    if isinstance(value, dict):
        return {name: changed(inner, change) for name, inner in value.items()}
    return change(value)


def test_server_holds_the_conversation_word_for_word(port: int) -> None:
    topic_ids: list[int] = []

    def theirs(value: Any) -> Any:
        return topic_ids[0] if value == TOPIC_ID else value

    def ours(value: Any) -> Any:
        if topic_ids and value == topic_ids[0]:
            return TOPIC_ID
        return TIMESTAMP if type(value) is int and value > 10**18 else value

    with Stranger(port) as stranger:
        for entry in entries("talk"):
            message: Any = value_of(entry["message"]) if entry["message"] else None
            if entry["who"] == "client":
                said = changed(message, theirs)
                stranger.write(frame(msgspec.msgpack.encode(said)) if said else bytes_of(entry))
                continue
            reply = stranger.read()
            if reply[0] == "created":
                topic_ids.append(reply[2])
            if reply[0] == "welcome":
                message[3] = reply[3] = "any version"
            assert changed(reply, ours) == message
        assert stranger.read() is None


def test_server_refuses_what_is_refused(port: int) -> None:
    with Stranger(port) as stranger:
        stranger.open()
        for entry in entries("refused"):
            stranger.write(bytes_of(entry))
            assert stranger.read()[:3] == ["error", int(entry["who"]), entry["message"]]
        stranger.write(wire.encode(wire.Ping(9)))
        assert stranger.read() == ["done", 9]


@pytest.mark.parametrize("data", CLOSING, ids=bytes.hex)
def test_server_closes_after_what_closes(port: int, data: bytes) -> None:
    with Stranger(port) as stranger:
        stranger.open()
        stranger.write(data)
        assert stranger.read()[:3] == ["error", 0, "ProtocolError"]
        assert stranger.read() is None


# --- batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", named("batch"))
def test_batch_bytes_are_encoded_decoded_and_valid(entry: Entry) -> None:
    columns = value_of(entry["message"])
    batch = bytes_of(entry)
    assert batches.validate(batch) == int(entry["who"])
    assert batches.decode(batch) == Columns(*columns)
    assert batches.encode(*columns) == batch == packed(entry["message"])


@pytest.mark.parametrize("entry", named("nobatch"))
def test_what_is_no_batch_is_refused_with_the_code(entry: Entry) -> None:
    with pytest.raises(errors.RequestRefused) as caught:
        batches.validate(bytes_of(entry))
    assert caught.value.code == entry["who"]


def test_batch_drawing_shows_real_bytes() -> None:
    drawing = DOCUMENT.split('the message "one" with the key "k"')[1].split("```")[0]
    lines = re.findall(r"^ +((?:[0-9a-f]{2} )+)", drawing, re.MULTILINE)
    assert bytes.fromhex("".join(lines)) == batches.encode([b"one"], [b"k"], [{"type": "new"}])


# --- tables ---------------------------------------------------------------------------------


def table_after(heading: str) -> list[list[str]]:
    """The rows of the first table after ``heading``, empty if the section has none."""
    _, found, rest = DOCUMENT.partition(f"\n{heading}\n")
    assert found, f"the page has no {heading!r}"
    section = re.split(r"^#|^\w+ is an array", rest, maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def words(type_: inspect.Type) -> str:
    """The page's name of a type."""
    match type_:
        case inspect.IntType():
            return "int"
        case inspect.FloatType():
            return "number"
        case inspect.StrType():
            return "text"
        case inspect.BytesType():
            return "bytes"
        case inspect.BoolType():
            return "bool"
        case inspect.NoneType():
            return "nil"
        case inspect.RawType():
            return "batch"
        case inspect.StructType():
            return "batch" if type_.cls is ReadColumns else type_.cls.__name__
        case inspect.LiteralType():
            return " or ".join(map(json.dumps, type_.values))
        case inspect.UnionType():
            return " or ".join(map(words, type_.types))
        case inspect.DictType():
            return f"map of {words(type_.key_type)} to {words(type_.value_type)}"
        case inspect.ListType(item_type=inspect.TupleType()):
            # What a request may hold is bounded.
            return "list of range" if type_.max_length is None else f"ranges{_bound(type_)}"
        case inspect.ListType():
            return f"list of {words(type_.item_type)}"
    raise AssertionError(type_)


def _bound(type_: inspect.ListType) -> str:
    """Nothing for a list of at most the ranges that the page names."""
    return "" if type_.max_length == wire.RANGES_MAX == 10_000 else f" up to {type_.max_length}"


def described(struct: type[msgspec.Struct]) -> list[list[str]]:
    """The fields of ``struct`` as the page's tables have them."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    rows = []
    for field in info.fields:
        factory = field.default_factory
        value = field.default if factory is msgspec.NODEFAULT else factory()
        default = "required" if field.required else json.dumps(msgspec.to_builtins(value))
        rows.append([field.name, words(field.type), default.replace("null", "nil")])
    return rows


@pytest.mark.parametrize(
    "message",
    [*get_args(wire.Request), *get_args(wire.Reply)],
    ids=lambda message: str(message.__struct_config__.tag),
)
def test_message_table_lists_the_fields_in_order(message: type[wire.Message]) -> None:
    rows = table_after(f"#### `{message.__struct_config__.tag}`")
    assert [row[:3] for row in rows] == described(message)[1:]


@pytest.mark.parametrize("request_type", get_args(wire.Request), ids=lambda r: r.__name__)
def test_request_names_the_reply_that_answers_it(request_type: type[wire.Message]) -> None:
    _, _, rest = DOCUMENT.partition(f"\n#### `{request_type.__struct_config__.tag}`\n")
    prose = re.split(r"^[#|]", rest, maxsplit=1, flags=re.MULTILINE)[0]
    (answer,) = re.findall(r"Answer[^.`]*: `(\w+)`|with `(done)`", prose)
    assert "".join(answer) in tags(wire.Reply) - {"error"}


@pytest.mark.parametrize(
    "struct",
    [
        model.TopicSettings,
        model.Subscribed,
        model.Sought,
        model.TopicInfo,
        model.TopicHolds,
        model.Hold,
        model.SubscriptionInfo,
        model.ServerStatus,
    ],
)
def test_value_table_lists_the_fields(struct: type[msgspec.Struct]) -> None:
    assert [row[:3] for row in table_after(f"#### {struct.__name__}")] == described(struct)


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("Acknowledge is an array:", wire.Acknowledge),
        (
            "AtTime is an array: the messages of that time, or the first later ones.",
            model.AtTime,
        ),
        ("Piece is an array: messages of one batch that were delivered equally often.", wire.Piece),
    ],
)
def test_array_table_lists_the_fields_in_order(heading: str, struct: type[msgspec.Struct]) -> None:
    assert [row[:3] for row in table_after(heading)] == described(struct)


def test_limits_table_lists_every_limit_and_its_default() -> None:
    rows = {name: int(default) for name, default, _ in table_after("#### Limits")}
    assert rows == msgspec.to_builtins(model.LIMITS)


def test_fixed_bounds_are_the_ones_in_force() -> None:
    fixed = DOCUMENT.partition("Not configurable")[2].partition("\n\n")[0].replace(",", "")
    numbers = [int(number) for number in re.findall(r"\b\d{2,}\b", fixed)]
    assert numbers == [
        wire.TEXT_LENGTH_MAX,
        wire.RANGES_MAX,
        model.NAME_LENGTH_MAX,
        16,
        round(model.ACK_WAIT_MAX_S * 1000),
    ]


def leaves(family: type[errors.MbctlError]) -> set[type[errors.MbctlError]]:
    children = [child for child in family.__subclasses__() if child.__module__ == errors.__name__]
    return {leaf for child in children for leaf in leaves(child)} or {family}


def test_errors_table_lists_every_error_that_a_server_sends() -> None:
    sent = leaves(errors.RequestRefused) | leaves(errors.ConnectionFatal)
    sent |= {errors.OutcomeUnknown, errors.DataLoss}
    # The one that only a client can find out.
    sent -= {errors.ConnectionLost}
    expected = {
        error.code: [
            ", ".join(get_annotations(error)),
            "yes" if issubclass(error, errors.ConnectionFatal) else "no",
            "later" if error.retryable else "no",
        ]
        for error in sent
    }
    rows = table_after("## Errors")
    assert {code: columns for code, *columns, _ in rows} == expected


def test_page_links_lead_to_its_headings() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    }
    links = re.findall(r"\]\(#([^)]+)\)", DOCUMENT)
    assert links
    assert set(links) <= anchors
