"""The journal's twin without a disk."""

import pytest

from mbctl.errors import DiskFull, NotSupported
from mbctl.journal.memory import BATCH_BYTES, MemoryJournal
from mbctl.journal.records import Acknowledged, BatchHead, Journal, TopicDeleted


def head(count: int = 1) -> BatchHead:
    return BatchHead(1, 0, count, 0, b"session", 1)


def test_memory_is_a_journal() -> None:
    journal: Journal = MemoryJournal(1_000)
    assert journal.durability == "memory"


def test_a_batch_is_read_back_from_its_place_as_it_was() -> None:
    journal = MemoryJournal(1_000)
    batches = [b"one", bytearray(b"two"), memoryview(b"three")]
    places = [journal.append_batch(head(), batch) for batch in batches]
    assert len(set(places)) == 3
    read: list[object] = []
    journal.read([places[2], places[0], places[2]], read.append)
    assert read == [[batches[2], batches[0], batches[2]]]
    journal.read([], read.append)
    assert read[1] == []


def test_taken_counts_the_bytes_of_batches_that_are_not_released() -> None:
    journal = MemoryJournal(1_000)
    wide = memoryview(b"12345678").cast("Q")
    places = [journal.append_batch(head(), batch) for batch in (b"12345", wide, b"")]
    assert journal.taken == 13 + 3 * BATCH_BYTES
    journal.release(places[:1])
    assert journal.taken == 8 + 2 * BATCH_BYTES
    journal.release(iter(places[1:]))
    assert journal.taken == 0


def test_a_batch_is_refused_that_there_is_no_room_for() -> None:
    journal = MemoryJournal(1_000)
    place = journal.append_batch(head(), b"x" * 500)
    room = 1_000 - journal.taken
    journal.check_room(room)
    with pytest.raises(DiskFull) as refusal:
        journal.check_room(room + 1)
    assert (refusal.value.size, refusal.value.limit) == (journal.taken, journal.max_bytes)
    journal.check_room(room + 1, is_reserved=True)
    journal.release([place])
    journal.check_room(room + 1)


def test_a_place_is_released_once_and_not_read_afterwards() -> None:
    journal = MemoryJournal(1_000)
    place = journal.append_batch(head(), b"one")
    journal.release([place])
    with pytest.raises(KeyError):
        journal.release([place])
    with pytest.raises(KeyError):
        journal.read([place], print)


def test_a_place_is_never_given_twice() -> None:
    journal = MemoryJournal(1_000)
    places = []
    for _ in range(5):
        places.append(journal.append_batch(head(), b"one"))
        journal.release(places[-1:])
    assert len(set(places)) == 5


def test_a_commit_is_done_at_once() -> None:
    journal = MemoryJournal(1_000)
    journal.append(TopicDeleted(7))
    done: list[int] = []
    journal.commit(lambda: done.append(1))
    journal.commit(lambda: done.append(2))
    assert done == [1, 2]


def test_closing_lets_go_of_everything() -> None:
    journal = MemoryJournal(1_000)
    journal.append_batch(head(), b"one")
    done: list[int] = []
    journal.close(lambda: done.append(1))
    assert (journal.taken, done) == (0, [1])


def test_memory_forces_nothing_to_disk() -> None:
    journal = MemoryJournal(1_000)
    journal.append_batch(head(), b"one")
    journal.commit(lambda: None)
    assert journal.syncs == 0


def test_a_batch_with_a_record_is_kept_like_another() -> None:
    journal = MemoryJournal(1_000)
    place = journal.append_batch(head(), b"dead", Acknowledged(1, "billing", [(0, 1)]))
    read: list[object] = []
    journal.read([place], read.append)
    assert read == [[b"dead"]]


def test_a_backup_of_memory_is_refused() -> None:
    answers: list[object] = []
    MemoryJournal(1_000).backup(answers.append)
    assert [type(answer) for answer in answers] == [NotSupported]
