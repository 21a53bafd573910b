"""docs/storage-format.md against the code: its tables, and its bytes in both directions."""

import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from crc32c import crc32c

from mbctl.journal import directory, footer, format, recovery, scan, snapshot, state
from mbctl.journal.records import BatchHead, Record, TopicCreated
from mbctl.model import LIMITS, TopicSettings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "storage-format.md").read_text(encoding="utf-8")

# What the tables call the types, for ``struct``.
CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert found, f"the page has no section {title!r}"
    return found[1]


def drawn(title: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    return rows(section(title).lstrip().partition("\n\n")[0])


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in ``text``, without their heads, code marks taken off."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {
        at + offset for at, line in enumerate(lines) if set(line) <= {*"|- "} for offset in (-1, 0)
    }
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for at, line in enumerate(lines)
        if at not in heads
    ]


def layout(title: str) -> tuple[list[str], str, int]:
    """A drawn head: the names of its fields, what ``struct`` makes of them, and its size."""
    names, code, end = [], "<", 0
    for at, kind, name, _ in drawn(title):
        assert int(at) == end, f"{title}: {name or kind} is not at {end}"
        word, _, size = kind.partition(" ")
        if word == "zeros":
            end += int(size)
            continue
        names.append(name)
        code += f"{size}s" if word == "bytes" else CODES[word]
        end += int(size) if word == "bytes" else struct.calcsize("<" + CODES[word])
    return names, code, end


def names_in(cell: str) -> list[str]:
    """The names that a cell has in code marks."""
    return re.findall(r"`([^`]+)`", cell)


# --- the tables -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "ours", "size"),
    [
        ("segment head", format._SEGMENT, format.SEGMENT_HEAD_BYTES),
        ("record head", format._HEAD, format.HEAD_BYTES),
        ("trailer", format._TRAILER, format.TRAILER_BYTES),
        ("snapshot head", format._SNAPSHOT, format.SNAPSHOT_HEAD_BYTES),
    ],
)
def test_drawn_head_is_the_one_that_is_written(title: str, ours: struct.Struct, size: int) -> None:
    names, code, drawn_size = layout(title)
    assert names[-1] == "crc"
    assert code == ours.format + "I"
    assert drawn_size == size
    (checked,) = [row[3] for row in drawn(title) if row[2] == "crc"]
    assert f"of bytes 0 to {ours.size - 1}" in checked


def test_fields_of_record_head_are_those_that_are_read() -> None:
    names, _, _ = layout("record head")
    fields = [name for name in names if name not in ("magic", "version", "head_size", "crc")]
    assert fields == list(format.Head.__struct_fields__)


@pytest.mark.parametrize(
    ("title", "magic"),
    [
        ("segment head", format.SEGMENT_MAGIC),
        ("record head", format.RECORD_MAGIC),
        ("trailer", format.TRAILER_MAGIC),
        ("snapshot head", format.SNAPSHOT_MAGIC),
    ],
)
def test_magic_is_the_one_of_the_page(title: str, magic: bytes) -> None:
    (_, kind, _, meaning) = drawn(title)[0]
    assert kind == f"bytes {len(magic)}"
    assert meaning == f"`{magic.decode()}`"


def test_kinds_of_records_are_those_of_the_page() -> None:
    table = section("record head").partition("\n| kind |")[2]
    described = {name: int(kind) for kind, name, _, _ in rows("| kind |" + table)}
    assert described == {
        "BATCH": format.BATCH,
        "CHANGES": format.CHANGES,
        "MARK": format.MARK,
        "FOOTER": format.FOOTER,
        "LOST": format.LOST,
        "BOTH": format.BOTH,
        "MOVED": format.MOVED,
    }


def test_changes_are_those_of_the_page() -> None:
    described = {
        names_in(kind)[0]: names_in(fields) for kind, fields, _ in rows(section("Changes"))
    }
    assert described == {
        change.__struct_config__.tag: list(change.__struct_fields__) for change in get_args(Record)
    }


def test_settings_are_those_of_the_page() -> None:
    (listed,) = re.findall(
        r"differ from their defaults: (.*?) \(see", section("Changes"), re.DOTALL
    )
    assert names_in(listed) == list(TopicSettings.__struct_fields__)


@pytest.mark.parametrize(
    ("title", "body", "topic"),
    [
        ("Footer and trailer", footer._Footer, footer._Topic),
        ("snapshot head", state._Body, state._TopicBody),
    ],
)
def test_elements_of_body_are_those_of_the_page(
    title: str, body: type[msgspec.Struct], topic: type[msgspec.Struct]
) -> None:
    tables = section(title).split("| element")[1:]
    described = [
        [name for row in rows("| element" + t) for name in names_in(row[0])] for t in tables
    ]
    assert described == [list(body.__struct_fields__), list(topic.__struct_fields__)]
    counts = {"seven": 7, "eight": 8}
    (said,) = re.findall(r"array of the (\w+) below", section(title))
    assert counts[said] == len(topic.__struct_fields__)


def test_names_of_files_are_those_of_the_page() -> None:
    in_directory, in_lost_and_found = section("The directory").split("In `lost+found`:")
    assert {names_in(row[0])[0] for row in rows(in_directory)} == {
        directory.FORMAT_NAME,
        directory.LOCK_NAME,
        format.segment_name(1),
        snapshot.SNAPSHOT_NAME,
        snapshot.NEXT_NAME,
        format.segment_name(1) + ".tmp",
        format.segment_name(format.COLD_NUMBER + 1),
        format.segment_name(format.COLD_NUMBER + 1) + ".tmp",
        directory.FORMAT_NAME + ".tmp",
        recovery.LOST_AND_FOUND + "/",
        directory.REPAIRING_NAME + "/",
        directory.REPAIRED_NAME + "/",
    }
    assert len(rows(in_lost_and_found)) == 2


def test_version_and_window_are_those_of_the_page() -> None:
    assert DOCUMENT.startswith(f"# The storage format, version {format.FORMAT_VERSION}\n")
    assert f"for its last {LIMITS.sends_in_flight} batches" in DOCUMENT
    for title in ("segment head", "record head", "snapshot head"):
        (version,) = [row[3] for row in drawn(title) if row[2] == "version"]
        assert version == str(format.FORMAT_VERSION)


# --- golden vectors -------------------------------------------------------------------------


class Vector(msgspec.Struct, frozen=True):
    """One structure of the page: what it is, its values and its bytes."""

    kind: str
    values: Any
    data: bytes


def vectors() -> Iterator[Vector]:
    """The vectors of the page, in order."""
    for block in re.findall(r"^```vector\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE):
        said, hexes = re.sub(r"\n +", " ", block).strip().split("\nhex ")
        kind, _, notation = said.partition(" ")
        text = re.sub(r"h'([0-9a-f]*)'", r'{"\\u0000": "\1"}', notation)
        values = json.loads(
            text, object_hook=lambda o: bytes.fromhex(o["\x00"]) if "\x00" in o else o
        )
        yield Vector(kind, values, bytes.fromhex(hexes))


def write_record(values: Any) -> bytes:
    """A record as the journal writes it."""
    fields = {**values, "session": values.get("session", bytes(16))}
    salt = format.salt_of(fields.pop("journal_id"))
    kind, body = fields.pop("kind"), fields.pop("body")
    number, mark = fields.pop("number"), fields.pop("mark")
    head = format.pack_head(kind, body, number, mark, salt=salt, **fields)
    return head + bytes(body)


def read_record(data: bytes, values: Any) -> Any:
    """The values that the journal reads from a record, of those that the page tells."""
    head = format.unpack_head(data, format.salt_of(values["journal_id"]))
    assert head is not None
    body = data[format.HEAD_BYTES :]
    assert head.body_size == len(body)
    found = {**msgspec.structs.asdict(head), "body": body, "journal_id": values["journal_id"]}
    return {name: found[name] for name in values}


def read_segment_head(data: bytes, values: Any) -> Any:
    head = format.unpack_segment_head(data)
    assert head is not None
    return {**msgspec.structs.asdict(head), "created": values["created"]}


def read_snapshot(data: bytes, values: Any) -> Any:
    head = format.unpack_snapshot_head(data)
    assert head is not None
    body = data[format.SNAPSHOT_HEAD_BYTES :]
    assert (head.body_size, head.body_crc) == (len(body), crc32c(body))
    return {
        "segment": head.segment,
        "next_number": head.next_number,
        "journal_id": head.journal_id,
        "body": body,
    }


Write = Callable[[Any], bytes]
Read = Callable[[bytes, Any], Any]

# By kind of vector how its values become bytes in the code, and its bytes values.
BOTH_WAYS: dict[str, tuple[Write, Read]] = {
    "record": (write_record, read_record),
    "segment": (lambda v: format.pack_segment_head(**v), read_segment_head),
    "trailer": (
        lambda v: format.pack_trailer(v["number"], v["position"]),
        lambda data, v: {
            "number": v["number"],
            "position": format.unpack_trailer(data, v["number"]),
        },
    ),
    "snapshot": (
        lambda v: (
            format.pack_snapshot_head(v["body"], v["segment"], v["next_number"], v["journal_id"])
            + v["body"]
        ),
        read_snapshot,
    ),
    "changes": (
        lambda v: format.encode_changes(
            [format.encode_change(msgspec.convert(change, Record)) for change in v]
        ),
        lambda data, v: msgspec.msgpack.decode(msgspec.msgpack.encode(format.decode_changes(data))),
    ),
    "footer": (
        lambda v: format_footer(msgspec.msgpack.encode(v)),
        lambda data, v: msgspec.msgpack.decode(data),
    ),
    "state": (
        lambda v: state.decode_state(msgspec.msgpack.encode(v), LIMITS.sends_in_flight).encode(),
        lambda data, v: msgspec.msgpack.decode(data),
    ),
}


def format_footer(body: bytes) -> bytes:
    """What the index writes that reads this footer."""
    index = footer.decode_footer(body, LIMITS.sends_in_flight)
    index.size = 1 << 20
    return index.encode()


@pytest.mark.parametrize("vector", list(vectors()), ids=lambda vector: vector.kind)
def test_vector_is_written_as_its_bytes_and_read_as_its_values(vector: Vector) -> None:
    write, read = BOTH_WAYS[vector.kind]
    assert write(vector.values).hex(" ", 4) == vector.data.hex(" ", 4)
    assert read(vector.data, vector.values) == vector.values


def test_every_structure_and_kind_of_record_has_a_vector() -> None:
    found = list(vectors())
    assert {vector.kind for vector in found} == set(BOTH_WAYS)
    kinds = {vector.values["kind"] for vector in found if vector.kind == "record"}
    assert kinds == {*scan.kinds_in(1), *scan.kinds_in(format.COLD_NUMBER)}
    changes = [change for vector in found if vector.kind == "changes" for change in vector.values]
    assert {change["type"] for change in changes} == {
        change.__struct_config__.tag for change in get_args(Record)
    }


def test_body_of_record_with_changes_is_a_vector_of_changes() -> None:
    bodies = {vector.data for vector in vectors() if vector.kind == "changes"}
    records = [vector.values for vector in vectors() if vector.kind == "record"]
    found = [r["body"] for r in records if r["kind"] == format.CHANGES]
    found += [r["body"][r["sequence"] :] for r in records if r["kind"] == format.BOTH]
    assert len(found) == 2
    assert all(body in bodies for body in found)


def test_index_that_is_built_is_the_footer_of_the_page() -> None:
    vector, cold = [vector for vector in vectors() if vector.kind == "footer"]
    first_number, topics, changes, _ = vector.values
    index = footer.SegmentIndex(first_number, LIMITS.sends_in_flight)
    for body in changes:
        index.add_changes(body)
    (topic_id, next_offset, *_) = topics[0]
    session = vector.values[3][0][0]
    head = BatchHead(topic_id, 0, 2, 1_700_000_000_000_000_000, session, 1)
    index.add_batch(head, 500, 12, 5_000_000_000)
    index.add_lost(topic_id, 2, next_offset - 2, 1_700_000_000_000_000_000, 600)
    index.add_batch(BatchHead(2, 0, 1, 1_700_000_000_000_000_000, bytes(16), 0), 776, 7)
    assert index.encode() == vector.data
    index = footer.SegmentIndex(1, LIMITS.sends_in_flight)
    for first, count, position in ((0, 2, 64), (5, 1, 164)):
        head = BatchHead(1, first, count, 1_700_000_000_000_000_000, session, 1)
        index.add_moved(head, position, 12)
    assert index.encode() == cold.data


def test_journal_file_of_the_page_is_read(tmp_path: Path) -> None:
    (line,) = re.findall(r"^```json\n(.*?\n)```", DOCUMENT, re.DOTALL | re.MULTILINE)
    found = msgspec.json.decode(line, type=directory._Format)
    assert found.format == format.FORMAT_VERSION
    assert len(bytes.fromhex(found.journal)) == 16
    assert msgspec.json.encode(found).decode() + "\n" == line


def test_records_of_the_page_are_one_segment_as_it_is_on_disk() -> None:
    *records, moved = [vector for vector in vectors() if vector.kind == "record"]
    cold = format.place_of(format.COLD_NUMBER + 1, format.SEGMENT_HEAD_BYTES)
    assert (moved.values["kind"], moved.values["mark"]) == (format.MOVED, cold)
    position = format.SEGMENT_HEAD_BYTES
    for number, vector in enumerate(records, start=1):
        assert vector.values["number"] == number
        assert vector.values["mark"] <= format.place_of(1, position)
        if vector.values["kind"] != format.FOOTER:
            position += len(vector.data)
    (trailer,) = [vector for vector in vectors() if vector.kind == "trailer"]
    assert trailer.values["position"] == position
    body, _ = [v.data for v in vectors() if v.kind == "footer"]
    assert records[-1].values["body"] == body


def test_change_of_what_is_not_there_changes_nothing() -> None:
    empty = state.State(LIMITS.sends_in_flight)
    for vector in vectors():
        if vector.kind == "changes":
            for change in msgspec.convert(vector.values, list[Record]):
                if not isinstance(change, TopicCreated):
                    empty.add(change)
    assert empty.topics == {}
