"""The table of leases."""

import pytest
from core_world import World

from mbctl.core.heap import Heap
from mbctl.core.leases import DELAYED, EXHAUSTED, LEASED, PARKED, READY, Agenda, Lease, Leases
from mbctl.core.members import Member


def table() -> tuple[Leases, Heap[Lease], Member]:
    """A table with three leases: [0, 4) is READY, [4, 8) LEASED, [10, 12) DELAYED."""
    world = World()
    world.topic()
    subscription = world.reader()
    agenda = Agenda()
    leases, member = Leases(subscription, agenda), Member(b"m", "billing", durable=True)
    leases.add(0, 4)
    leases.grant(leases.add(4, 8), member, 100)
    leases.delay(leases.add(10, 12), 50)
    leases.check()
    return leases, agenda.deadlines, member


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, (0, 4)),
        (3, (0, 4)),
        (4, (4, 8)),
        (7, (4, 8)),
        (8, None),
        (9, None),
        (11, (10, 12)),
        (12, None),
    ],
)
def test_a_lease_is_found_by_any_of_its_offsets(offset, expected) -> None:
    leases, _, _ = table()
    lease = leases.at(offset)
    assert (None if lease is None else (lease.first, lease.next)) == expected


@pytest.mark.parametrize(
    ("edge", "is_across"), [(0, False), (2, True), (4, False), (5, True), (8, False), (11, True)]
)
def test_an_edge_is_across_the_lease_that_it_would_cut(edge, is_across) -> None:
    leases, _, _ = table()
    assert (leases.across(edge) is not None) == is_across


@pytest.mark.parametrize(
    ("first", "next", "starts"),
    [(0, 12, [0, 4, 10]), (0, 4, [0]), (1, 10, [4]), (4, 11, [4, 10]), (5, 9, [])],
)
def test_leases_are_found_by_where_they_begin(first, next, starts) -> None:
    leases, _, _ = table()
    assert [lease.first for lease in leases.beginning_in(first, next)] == starts


@pytest.mark.parametrize(("first", "edge"), [(0, 2), (4, 5), (10, 11)])
def test_both_parts_of_a_lease_that_is_cut_keep_its_state_and_deadline(first, edge) -> None:
    leases, deadlines, member = table()
    lease = leases.at(first)
    state, deadline, before = lease.state, deadlines.get(lease), leases.leased_count
    leases.cut(lease, edge)
    rest = leases.at(edge)
    leases.check()
    assert rest is not lease
    assert (rest.state, rest.member, rest.deliveries) == (state, lease.member, lease.deliveries)
    assert deadlines.get(rest) == deadlines.get(lease) == deadline
    assert leases.leased_count == before
    assert len(member.leases) == (2 if state is LEASED else 1)


def test_the_lowest_ready_lease_is_the_first() -> None:
    leases, _, member = table()
    assert leases.first_ready.first == 0
    leases.make_ready(leases.at(10))
    leases.grant(leases.first_ready, member, 100)
    assert leases.first_ready.first == 10
    leases.grant(leases.first_ready, member, 100)
    assert leases.first_ready is None


def test_a_lease_goes_through_its_states() -> None:
    leases, deadlines, member = table()
    lease = leases.at(4)
    leases.renew(lease, 300)
    assert deadlines.get(lease) == 300
    leases.delay(lease, 200)
    leases.check()
    assert (lease.state, deadlines.get(lease), leases.leased_count) == (DELAYED, 200, 0)
    leases.make_ready(lease)
    leases.check()
    assert (lease.state, deadlines.get(lease), lease.member) == (READY, None, member)
    leases.grant(lease, member, 400)
    leases.check()
    assert (lease.state, lease.deliveries, list(member.leases)) == (LEASED, 2, [lease])


def test_a_removed_lease_is_nowhere() -> None:
    leases, deadlines, member = table()
    for lease in list(leases):
        leases.remove(lease)
        leases.check()
    assert len(leases) == len(deadlines) == len(member.leases) == leases.leased_count == 0


def test_clearing_takes_all_leases_out_of_everything() -> None:
    leases, deadlines, member = table()
    leases.clear()
    leases.check()
    assert len(leases) == len(deadlines) == len(member.leases) == leases.leased_count == 0


# --- what is not to be granted ----------------------------------------------------------------


def table_of(state: str) -> tuple[Leases, Agenda, Lease]:
    """A table with one lease [0, 6) in a state."""
    world = World()
    world.topic()
    agenda = Agenda()
    leases = Leases(world.reader(), agenda)
    lease = leases.add(0, 6)
    leases.grant(lease, Member(b"m", "billing", durable=True), 100)
    if state is EXHAUSTED:
        leases.exhaust(lease)
    else:
        leases.park(lease)
    leases.check()
    return leases, agenda, lease


@pytest.mark.parametrize("state", [EXHAUSTED, PARKED])
def test_what_is_not_to_be_granted_is_with_nobody_and_has_no_deadline(state) -> None:
    leases, agenda, lease = table_of(state)
    assert lease.member is not None
    assert (lease.state, lease.member.leases, len(agenda.deadlines)) == (state, {}, 0)
    assert leases.first_ready is None
    assert (leases.leased_count, leases.parked_count) == (0, 6 if state is PARKED else 0)
    assert list(agenda.exhausted) == ([lease] if state is EXHAUSTED else [])
    leases.cut(lease, 2)
    leases.check()
    assert leases.parked_count == (6 if state is PARKED else 0)
    assert [one.state for one in leases] == [state, state]
    leases.remove(lease)
    leases.check()
    leases.clear()
    leases.check()
    assert (leases.parked_count, agenda.exhausted, agenda.recounted) == (0, {}, {})


@pytest.mark.parametrize(
    ("in_hand_to", "waiting"),
    [(0, [(0, 0), (2, 2)]), (1, [(0, 1), (2, 2)]), (2, [(2, 2)]), (4, [(2, 4)])],
)
def test_a_lease_that_is_cut_has_in_hand_what_was_in_hand(in_hand_to, waiting) -> None:
    leases, agenda, lease = table_of(EXHAUSTED)
    agenda.exhausted[lease] = in_hand_to
    leases.cut(lease, 2)
    leases.check()
    assert sorted((one.first, at) for one, at in agenda.exhausted.items()) == waiting


def test_a_lease_that_is_in_hand_stays_so_when_it_is_cut() -> None:
    leases, agenda, lease = table_of(EXHAUSTED)
    del agenda.exhausted[lease]
    leases.cut(lease, 2)
    leases.check()
    assert agenda.exhausted == {}


@pytest.mark.parametrize(
    ("first", "next", "starts"),
    [(0, 1, [0]), (3, 5, [0, 4]), (4, 5, [4]), (7, 11, [4, 10]), (8, 10, []), (11, 99, [10])],
)
def test_leases_are_found_by_what_they_hold(first, next, starts) -> None:
    leases, _, _ = table()
    assert [lease.first for lease in leases.within(first, next)] == starts


def test_counts_are_told_where_they_are_more_than_one_or_parked() -> None:
    leases, agenda, lease = table_of(PARKED)
    assert leases.counts() == [(0, 6, 1, True)]
    leases.cut(lease, 3)
    assert leases.counts() == [(0, 6, 1, True)]
    leases.release(lease)
    assert leases.counts() == [(3, 6, 1, True)]
    assert leases.take_counts() == [(0, 3, 0, False), (3, 6, 1, True)]
    assert leases.take_counts() == []
    assert agenda.recounted == {}
