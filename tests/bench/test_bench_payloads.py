"""What was lost, doubled, changed or reordered is found, in plain and in numbered messages."""

from collections.abc import Callable
from itertools import chain, islice

import pytest

from mbctl.bench.payloads import HEAD, Check, Content, batches_of

BATCH = 7
CONTENTS = [
    Content(size=30),
    Content(size=30, numbered=True),
    Content(size=30, mixed=True),
    Content(size=10, mixed=True, numbered=True),
]
each_content = pytest.mark.parametrize(
    "content", CONTENTS, ids=["plain", "numbered", "mixed", "mixed and numbered"]
)


def sent(content: Content, count: int, publisher: int = 0) -> list[bytes]:
    """The first messages of a publisher."""
    return list(islice(chain.from_iterable(batches_of(content, publisher, BATCH)), count))


def faults(content: Content, groups: list[list[bytes]], *totals: int) -> list[str]:
    """What a reader of these groups has to say."""
    check = Check(content, len(totals), BATCH)
    for group in groups:
        check.take(group)
    check.finish(totals)
    assert check.count == sum(map(len, groups))
    return check.faults


@each_content
@pytest.mark.parametrize("group", [1, 3, BATCH, 10, 500])
def test_all_in_order_is_no_fault_however_it_is_grouped(content: Content, group: int) -> None:
    messages = sent(content, 500)
    groups = [messages[n : n + group] for n in range(0, 500, group)]
    assert faults(content, groups, 500) == []


@each_content
def test_messages_of_two_publishers_may_be_mixed_in_any_way(content: Content) -> None:
    one, two = sent(content, 100), sent(content, 60, publisher=1)
    mixed = [*one[:50], *two[:3], one[50], two[3], *one[51:], *two[4:]]
    assert faults(content, [mixed[:20], mixed[20:]], 100, 60) == []


@each_content
@pytest.mark.parametrize(
    "harm",
    [
        lambda m: m.pop(40),
        lambda m: m.insert(60, m[40]),
        lambda m: m.insert(41, m[40]),
        lambda m: m.insert(60, m.pop(40)),
        lambda m: m.__setitem__(40, m[40][:-1] + bytes([m[40][-1] ^ 1])),
        lambda m: m.pop(),
        lambda m: m.append(m[40]),
        lambda m: m.__setitem__(40, b""),
        lambda m: m.__setitem__(40, b"\xff" + m[40][1:]),
        lambda m: m.__delitem__(slice(20, 60)),
    ],
    ids=[
        *("lost", "doubled later", "doubled at once", "late", "changed", "last lost"),
        *("doubled at the end", "empty", "of nobody", "many lost"),
    ],
)
def test_harm_is_found(content: Content, harm: Callable[[list[bytes]], object]) -> None:
    messages = sent(content, 100)
    harm(messages)
    assert faults(content, [messages[:30], messages[30:]], 100)


@each_content
def test_lost_messages_are_counted(content: Content) -> None:
    messages = sent(content, 100)
    (fault,) = faults(content, [messages[:20] + messages[60:]], 100)
    assert "publisher 0: 40 lost" in fault


def test_numbered_message_that_comes_twice_is_named() -> None:
    messages = sent(CONTENTS[1], 100)
    (fault,) = faults(CONTENTS[1], [[*messages, messages[40]]], 100)
    assert fault == "publisher 0: message 40 came twice"


def test_faults_beyond_the_first_few_are_counted() -> None:
    messages = sent(CONTENTS[1], 100)
    told = faults(CONTENTS[1], [messages + messages], 100)
    assert len(told) == 6
    assert told[-1] == "and 95 more"


def test_pool_repeats_at_whole_batches() -> None:
    content = Content(size=1_000_000)
    messages = sent(content, 40)
    assert messages[:14] == messages[14:28]
    assert faults(content, [messages], 40) == []


@pytest.mark.parametrize("size", [HEAD, 100, 1 << 20])
def test_payloads_have_their_size_and_differ(size: int) -> None:
    for content in (Content(size=size), Content(size=size, numbered=True)):
        messages = sent(content, BATCH)
        assert {len(message) for message in messages} == {size}
        assert len(set(messages)) == BATCH
        assert messages == sent(content, BATCH)
        assert messages[0] not in sent(content, BATCH, publisher=1)


def test_mixed_sizes_go_from_half_to_half_as_much_again() -> None:
    sizes = [len(payload) for payload in sent(Content(size=100, mixed=True), 5000)]
    assert (min(sizes), max(sizes)) == (50, 150)
    assert 98 < sum(sizes) / len(sizes) < 102
