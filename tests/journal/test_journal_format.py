"""The bytes of the journal: golden directories, and what is written is read."""

import random
import shutil
from pathlib import Path

import make_golden
import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from journal_world import DATA, SMALL, World
from simulated_disk import SimulatedDisk
from virtual_turns import VirtualTurns

from mbctl.errors import MbctlError, NewerFormat, StorageCorrupt
from mbctl.files import Directory, Disk
from mbctl.journal import format
from mbctl.journal.disk import open_journal
from mbctl.journal.footer import SegmentIndex, decode_footer
from mbctl.journal.records import (
    Acknowledged,
    BatchHead,
    Record,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
)
from mbctl.journal.state import State, decode_state
from mbctl.model import TopicSettings

GOLDEN = make_golden.GOLDEN / make_golden.VERSION
WINDOW = 4

# --- golden directories ---------------------------------------------------------------------


def expected(name: str) -> object:
    """What a golden directory holds."""
    return msgspec.json.decode((GOLDEN / name / "expected.json").read_bytes())


@pytest.mark.parametrize("name", make_golden.DIRECTORIES)
def test_golden_directory_holds_what_it_did(name: str, tmp_path: Path) -> None:
    directory = make_golden.copy(name, tmp_path / "data")
    assert make_golden.held(directory) == expected(name)
    # What was opened and closed has been sealed and snapshot by this version.
    assert make_golden.held(directory) == expected(name)


@pytest.mark.parametrize("name", make_golden.DIRECTORIES)
def test_golden_directory_is_one_that_is_made_today(name: str) -> None:
    world = make_golden.filled()
    disk = make_golden.DIRECTORIES[name](world)
    assert make_golden.held(Directory(disk, Path(DATA))) == expected(name)


def test_golden_directories_have_what_a_directory_can_have() -> None:
    lengths = {
        name: msgspec.json.decode((GOLDEN / name / "lengths.json").read_bytes())
        for name in make_golden.DIRECTORIES
    }
    assert {"FORMAT", "LOCK", "snapshot"} <= set(lengths["closed"])
    # That of the killed one has segments that are not sealed, and replays some.
    contents = {
        file: (GOLDEN / "killed" / f"{file}.bin").stat().st_size for file in lengths["killed"]
    }
    unsealed = [
        f for f in contents if f.endswith(".segment") and contents[f] < lengths["killed"][f]
    ]
    assert len(unsealed) >= 1
    # That of the repaired one has what stands for lost messages.
    assert '"lost": 1' in (GOLDEN / "repaired" / "expected.json").read_text()
    head = format.unpack_snapshot_head((GOLDEN / "killed" / "snapshot.bin").read_bytes().ljust(64))
    assert head is not None
    assert 1 < head.segment < len([f for f in contents if f.endswith(".segment")])


# --- newer versions and unknown kinds -------------------------------------------------------


def reseal(data: bytearray, first: int, size: int, salt: int = 0) -> None:
    """Make the checksum of the head at ``first`` right again."""
    crc = crc32c(data[first : first + size], salt)
    data[first + size : first + size + 4] = crc.to_bytes(4, "little")


def small_world() -> World:
    """A journal that was killed with a segment that is not sealed."""
    world = World(options=make_golden.OPTIONS)
    orders = world.topic()
    world.subscribe(orders)
    world.send(orders, 40)
    world.commit()
    world.quiet()
    return world


def journal_id(disk: SimulatedDisk) -> bytes:
    return bytes.fromhex(msgspec.json.decode(disk.read_file(f"{DATA}/FORMAT"))["journal"])


def raise_version(disk: SimulatedDisk, what: str) -> None:
    """Make the directory, a segment, the snapshot or a record one of a newer version."""
    if what == "FORMAT":
        newer = disk.read_file(f"{DATA}/FORMAT").replace(b'"format":1', b'"format":2')
        disk.write_file(f"{DATA}/FORMAT", newer)
        return
    path = f"{DATA}/snapshot" if what == "snapshot" else f"{DATA}/{format.segment_name(1)}"
    data = bytearray(disk.read_file(path))
    if what == "record":
        data[64 + 4] = 2
        reseal(data, 64, 84, format.salt_of(journal_id(disk)))
    else:
        data[8] = 2
        reseal(data, 0, 56 if what == "snapshot" else 48)
    disk.write_file(path, bytes(data))


@pytest.mark.parametrize("what", ["FORMAT", "snapshot", "segment", "record"])
def test_newer_version_is_refused_with_nothing_written(what: str) -> None:
    disk = small_world().disk.killed()
    raise_version(disk, what)
    before = disk.tree()
    with pytest.raises(NewerFormat) as caught:
        World(disk)
    assert (caught.value.details["found"], caught.value.details["known"]) == (2, 1)
    assert disk.tree() == before


def test_record_of_an_unknown_kind_is_refused_with_nothing_written() -> None:
    disk = small_world().disk.killed()
    path = f"{DATA}/{format.segment_name(1)}"
    data = bytearray(disk.read_file(path))
    head = format.unpack_head(data, format.salt_of(journal_id(disk)), 64)
    assert head is not None
    data[64 + 5] = 9
    reseal(data, 64, 84, format.salt_of(journal_id(disk)))
    disk.write_file(path, bytes(data))
    before = disk.tree()
    with pytest.raises(StorageCorrupt, match="unknown kind 9"):
        World(disk)
    assert disk.tree() == before


# --- what stands for what was given up ------------------------------------------------------


def test_lost_record_stands_for_messages_and_reads_as_damaged() -> None:
    disk = small_world().disk.killed()
    salt = format.salt_of(journal_id(disk))
    path = f"{DATA}/{format.segment_name(1)}"
    data = bytearray(disk.read_file(path))
    end, number = 64, 0
    while (head := format.unpack_head(data, salt, end)) is not None:
        end, number = end + format.HEAD_BYTES + head.body_size, head.number
    lost = format.pack_head(
        format.LOST, b"", number + 1, 0, salt=salt, count=10, topic_id=1, first_offset=1
    )
    data[end : end + len(lost)] = lost
    disk.write_file(path, bytes(data))
    for _ in range(2):
        # The first time from its record, the second from the footer.
        world = World(disk)
        (topic,) = world.recovered.topics
        assert topic.next_offset == 11
        (run,) = topic.runs
        assert list(run.firsts) == [0, 1]
        whole, gone = world.read(list(run.places))
        assert isinstance(whole, bytes)
        assert "given up" in gone.reason
        world.close()


# --- what is written is read ----------------------------------------------------------------

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
ids = st.binary(min_size=16, max_size=16)


@given(
    st.integers(0, 255), st.binary(max_size=64), u64, u64, u32, u64, u64, i64, ids, u64, ids, u32
)
def test_record_head_is_read_as_it_was_written(
    kind: int,
    body: bytes,
    number: int,
    mark: int,
    count: int,
    topic_id: int,
    first_offset: int,
    timestamp: int,
    session: bytes,
    sequence: int,
    journal: bytes,
    junk: int,
) -> None:
    salt = format.salt_of(journal)
    fields = {
        "count": count,
        "topic_id": topic_id,
        "first_offset": first_offset,
        "timestamp": timestamp,
        "session": session,
        "sequence": sequence,
    }
    data = format.pack_head(kind, body, number, mark, salt=salt, **fields)  # type: ignore[arg-type]
    before = b"x" * (junk % 50)
    head = format.unpack_head(before + data + body, salt, len(before))
    assert head is not None
    found = msgspec.structs.asdict(head)
    assert found.pop("body_crc") == crc32c(body)
    fields |= {"kind": kind, "body_size": len(body), "number": number, "mark": mark}
    assert found == fields
    assert format.unpack_head(data, salt + 1 & 2**32 - 1) is None


@given(u64, ids, i64, st.data())
def test_head_with_any_bit_flipped_is_none(
    number: int, journal: bytes, created: int, data: st.DataObject
) -> None:
    number_in_file = number % 2**32
    heads = [
        (format.pack_segment_head(number, journal, created), 52, format.unpack_segment_head),
        (format.pack_snapshot_head(b"", number, number, journal), 60, format.unpack_snapshot_head),
        (
            format.pack_trailer(number_in_file, number),
            28,
            lambda trailer: format.unpack_trailer(trailer, number_in_file),
        ),
        (
            format.pack_head(format.MARK, b"", number, number, salt=format.salt_of(journal)),
            88,
            lambda head: format.unpack_head(head, format.salt_of(journal)),
        ),
    ]
    for head, checked, unpack in heads:
        assert unpack(head) is not None
        bit = data.draw(st.integers(0, checked * 8 - 1))
        flipped = bytearray(head)
        flipped[bit // 8] ^= 1 << bit % 8
        assert unpack(bytes(flipped)) is None
        assert unpack(head[: data.draw(st.integers(0, checked - 1))]) is None


names = st.text("abcz", min_size=1, max_size=5)
offsets = st.integers(0, 40)
settings = st.builds(
    TopicSettings,
    max_messages=st.none() | st.integers(1, 2**40),
    max_age=st.none() | st.floats(0.1, 1e9),
    when_full=st.sampled_from(["refuse", "drop_oldest"]),
)
ranges = st.lists(
    st.tuples(offsets, st.integers(1, 9)).map(lambda pair: (pair[0], sum(pair))), max_size=4
)
topic_ids = st.integers(1, 5)
changes = st.one_of(
    st.builds(TopicCreated, topic_ids, names, settings, created=u32),
    st.builds(TopicDeleted, topic_ids),
    st.builds(TopicTrimmed, topic_ids, offsets),
    st.builds(SubscriptionState, topic_ids, names, offsets, ranges, u32, u32),
    st.builds(Acknowledged, topic_ids, names, ranges),
    st.builds(SubscriptionDeleted, topic_ids, names),
)


@given(st.lists(changes))
def test_changes_are_read_as_they_were_written(written: list[Record]) -> None:
    body = format.encode_changes([format.encode_change(change) for change in written])
    assert format.decode_changes(body) == written


@st.composite
def indexes(draw: st.DrawFn) -> SegmentIndex:
    """What a segment may hold: changes, batches of several topics and sessions, and lost ones."""
    index = SegmentIndex(draw(st.integers(1, 2**40)), WINDOW)
    nexts = {topic_id: draw(st.integers(0, 2**50)) for topic_id in range(1, 4)}
    position = 64
    for number in range(draw(st.integers(0, 30))):
        kind = draw(st.sampled_from([format.BATCH, format.BATCH, format.CHANGES, format.LOST]))
        topic_id = draw(st.integers(1, 3))
        count = draw(st.integers(1, 2**32 - 1))
        if kind == format.CHANGES:
            written = draw(st.lists(changes, max_size=3))
            index.add_changes(
                format.encode_changes([format.encode_change(change) for change in written])
            )
            continue
        first = nexts[topic_id]
        nexts[topic_id] += count
        position += draw(st.integers(88, 10_000))
        if kind == format.LOST:
            index.add_lost(topic_id, first, count, number, position)
        else:
            session = draw(st.sampled_from([b"a" * 16, b"b" * 16]))
            head = BatchHead(topic_id, first, count, number, session, number + 1)
            index.add_batch(head, position, draw(u32))
    return index


@given(indexes())
def test_footer_is_read_as_it_was_written_and_no_larger_than_was_reckoned(
    index: SegmentIndex,
) -> None:
    body = index.encode()
    read = decode_footer(body, WINDOW)
    read.size = index.size
    assert read.encode() == body
    assert (
        read.batch_count == index.batch_count == sum(len(t.firsts) for t in index.topics.values())
    )
    assert [t.next_offset for t in read.topics.values()] == [
        t.next_offset for t in index.topics.values()
    ]
    assert len(body) + format.HEAD_BYTES + format.TRAILER_BYTES <= index.size


@given(st.lists(indexes(), max_size=3))
def test_snapshot_is_read_as_it_was_written_and_goes_on_the_same(
    segments: list[SegmentIndex],
) -> None:
    at_once, in_steps = State(WINDOW), State(WINDOW)
    for index in segments:
        at_once.add_segment(index)
        in_steps.add_segment(index)
        body = in_steps.encode()
        in_steps = decode_state(body, WINDOW)
        assert in_steps.encode() == body
    assert in_steps.encode() == at_once.encode()


@pytest.mark.slow
def test_no_byte_of_a_golden_directory_can_be_changed_unnoticed(tmp_path: Path) -> None:
    """Flip bytes all over: what is then opened is what it was, or says that it is not."""
    chance = random.Random(20)
    whole = expected("closed")
    outcomes = {"same": 0, "refused": 0, "lost": 0}
    for _ in range(60):
        target = tmp_path / "data"
        make_golden.copy("closed", target)
        file = chance.choice([p for p in sorted(target.iterdir()) if p.suffix == ".segment"])
        data = bytearray(file.read_bytes())
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        file.write_bytes(bytes(data))
        try:
            found = make_golden.held(Directory(Disk(), target))
        except (MbctlError, StorageCorrupt):
            outcomes["refused"] += 1
        else:
            is_told = b'"lost"' in msgspec.json.encode(found)
            assert is_told or found == whole, f"byte {at} of {file.name}"
            outcomes["lost" if is_told else "same"] += 1
        shutil.rmtree(target)
    assert min(outcomes.values()) > 0, outcomes


def test_directory_that_is_repaired_is_not_served(tmp_path: Path) -> None:
    directory = make_golden.copy("closed", tmp_path / "data")
    (tmp_path / "data" / "repaired").mkdir()
    turns = VirtualTurns()
    with pytest.raises(StorageCorrupt, match="a repair was interrupted"):
        open_journal(directory, turns, SMALL, new_worker=turns.new_worker)
