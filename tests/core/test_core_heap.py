"""The heap that gives the lowest number."""

import random

from mbctl.core.heap import Heap


def test_heap_gives_keys_in_the_order_of_their_numbers() -> None:
    heap: Heap[str] = Heap()
    for key, number in (("late", 30), ("soon", 10), ("later", 40)):
        heap.set(key, number)
    assert heap.lowest() == 10
    assert [heap.pop_through(35) for _ in range(3)] == ["soon", "late", None]
    assert len(heap) == 1


def test_heap_gives_equal_numbers_in_the_order_they_were_set() -> None:
    heap: Heap[str] = Heap()
    for key in ("c", "a", "b"):
        heap.set(key, 7)
    assert [heap.pop_through(7) for _ in range(3)] == ["c", "a", "b"]


def test_heap_keeps_only_the_last_number_of_a_key() -> None:
    heap: Heap[str] = Heap()
    heap.set("a", 5)
    heap.set("a", 50)
    assert heap.get("a") == heap.lowest() == 50
    assert heap.pop_through(49) is None
    assert heap.pop_through(50) == "a"
    assert heap.lowest() is None


def test_heap_forgets_what_was_removed() -> None:
    heap: Heap[str] = Heap()
    heap.set("a", 5)
    heap.remove("a")
    heap.remove("never there")
    assert "a" not in heap
    assert heap.get("a") is None
    assert heap.pop_through(1_000) is None
    heap.set("a", 6)
    assert heap.pop_through(1_000) == "a"


def test_heap_does_not_grow_by_what_was_changed_or_removed() -> None:
    heap: Heap[int] = Heap()
    heap.set(-1, 0)
    for number in range(10_000):
        heap.set(0, number)
        heap.set(number, number)
        heap.remove(number)
        assert len(heap.heap) < 100
    heap.check()


def test_heap_agrees_with_a_sorted_dict_whatever_is_done() -> None:
    choice = random.Random(1)
    heap: Heap[int] = Heap()
    expected: dict[int, int] = {}
    for _ in range(5_000):
        key, number = choice.randrange(30), choice.randrange(1_000)
        match choice.randrange(3):
            case 0:
                heap.set(key, number)
                expected[key] = number
            case 1:
                heap.remove(key)
                expected.pop(key, None)
            case _:
                popped = heap.pop_through(number)
                lowest = min(expected.values(), default=1_000)
                if lowest <= number:
                    assert popped is not None
                    assert expected.pop(popped) == lowest
                else:
                    assert popped is None
        assert heap.lowest() == min(expected.values(), default=None)
        assert len(heap) == len(expected)
    heap.check()
