"""Cancels a coroutine at its k-th pause, for every k."""

import asyncio
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

# Far more pauses than anything here has: reaching it means that one never ends.
_PAUSES_MAX = 500


class Ended(msgspec.Struct, frozen=True):
    """What became of a coroutine that was to be cancelled."""

    pause: int
    is_late: bool
    result: Any = None
    is_cancelled: bool = False


@types.coroutine
def _cancelling(
    inner: Coroutine[Any, Any, T], pause: int, is_late: bool, reached: list[int]
) -> Generator[Any, Any, T]:
    """Run ``inner`` as a part of the current task, and cancel that at ``inner``'s pause."""
    task = asyncio.current_task()
    assert task is not None
    count = 0
    thrown: BaseException | None = None
    while True:
        try:
            waited = inner.send(None) if thrown is None else inner.throw(thrown)
        except StopIteration as end:
            result: T = end.value
            return result
        count += 1
        reached.append(count)
        if count == pause:
            if is_late and waited is not None:
                # When what is waited for is there, and before the task can see it.
                waited.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        try:
            thrown = None
            yield waited
        except BaseException as error:
            thrown = error


async def _until_cancelled(
    make: Callable[[], Awaitable[Any]], pause: int, is_late: bool, reached: list[int]
) -> Any:
    async def inner() -> Any:
        return await make()

    return await _cancelling(inner(), pause, is_late, reached)


async def cancelled_everywhere(make: Callable[[], Awaitable[Any]]) -> AsyncIterator[Ended]:
    """Do it again and again, cancelled at its first pause, at its second, and so on.

    Each twice: as it begins to wait, and late, when what it waited for has just come. The last
    two had fewer pauses than that and ended by themselves.
    """
    for pause in range(1, _PAUSES_MAX):
        untouched = 0
        for is_late in (False, True):
            reached: list[int] = []
            task = asyncio.create_task(_until_cancelled(make, pause, is_late, reached))
            await asyncio.wait([task])
            if task.cancelled():
                yield Ended(pause, is_late, is_cancelled=True)
            else:
                yield Ended(pause, is_late, result=task.result())
            untouched += len(reached) < pause
        if untouched == 2:
            return
    raise AssertionError(f"more than {_PAUSES_MAX} pauses")
