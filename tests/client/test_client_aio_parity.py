"""Both faces have the same verbs: names, arguments, defaults, answers and what is said of them."""

import inspect
import subprocess
import sys
from typing import Any

import pytest

import mbctl
from mbctl import aio
from mbctl.client import messages, pipeline, subscriber

KINDS = ("Admin", "Batch", "Message", "Pipeline", "Publisher", "Subscriber")

# What a face has instead of the other's.
RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
# Verbs that begin something and wait for nothing: an ``async with`` or ``async for`` does.
BEGINNERS = {"pipeline", "follow", "follow_batches"}
# What is gone through by ``async for`` has a type of its own.
LOOPS = {"follow": aio.Following, "follow_batches": aio.FollowingBatches}
# What the faces need because of how they wait: hooks, and not verbs.
INNER = {"give_back", "give_back_reply", "end_pull"}


def verbs_of(kind: type) -> dict[str, Any]:
    """The public methods and attributes of a class."""
    return {
        RENAMED.get(name, name): getattr(kind, name)
        for name in dir(kind)
        if name not in INNER and (not name.startswith("_") or name in {*RENAMED, *RENAMED.values()})
    }


def pairs() -> list[Any]:
    """Each method that both faces have, with its name."""
    found = []
    for kind in KINDS:
        other = verbs_of(getattr(aio, kind))
        for name, verb in verbs_of(getattr(mbctl, kind)).items():
            if inspect.isfunction(verb) and name in other:
                found.append(pytest.param(verb, other[name], id=f"{kind}.{name}"))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_both_faces_have_the_same_names(kind: str) -> None:
    sync, other = verbs_of(getattr(mbctl, kind)), verbs_of(getattr(aio, kind))
    assert set(sync) == set(other)


@pytest.mark.parametrize("kind", KINDS)
def test_both_faces_are_made_and_described_alike(kind: str) -> None:
    sync, other = getattr(mbctl, kind), getattr(aio, kind)
    assert str(inspect.signature(sync)).replace("'", "") == str(inspect.signature(other)).replace(
        "'", ""
    ).replace(".aio.", ".")
    assert sync.__doc__.splitlines()[0] == other.__doc__.splitlines()[0]


@pytest.mark.parametrize(("sync", "other"), pairs())
def test_verb_takes_the_same_arguments(sync: Any, other: Any) -> None:
    ours, theirs = inspect.signature(sync), inspect.signature(other)
    # The faces' own classes have the same names.
    assert list(map(str, ours.parameters.values())) == [
        str(parameter).replace(".aio.", ".") for parameter in theirs.parameters.values()
    ]


@pytest.mark.parametrize(("sync", "other"), pairs())
def test_verb_gives_the_same_answer(sync: Any, other: Any) -> None:
    ours = inspect.signature(sync).return_annotation
    theirs = inspect.signature(other).return_annotation
    if sync.__name__ in LOOPS:
        assert theirs is LOOPS[sync.__name__]
    else:
        # The faces' own classes have the same names.
        assert getattr(ours, "__name__", ours) == getattr(theirs, "__name__", theirs)


@pytest.mark.parametrize(("sync", "other"), pairs())
def test_verb_promises_the_same(sync: Any, other: Any) -> None:
    if sync.__doc__ is None or sync.__name__.startswith("__"):
        return
    assert sync.__doc__.splitlines()[0] == other.__doc__.splitlines()[0]
    raised = [doc.partition("Raises:")[2].split() for doc in (sync.__doc__, other.__doc__)]
    # What the asyncio face refuses besides is told after what both do.
    assert raised[1][: len(raised[0])] == raised[0]


@pytest.mark.parametrize(("sync", "other"), pairs())
def test_verb_is_a_coroutine_where_it_waits(sync: Any, other: Any) -> None:
    # What neither waits nor asks the server is plain in both, such as taking out a range.
    plain = {"close_range", "take_over", "opening", "opened", "pull_request", "take_reply"}
    plain |= {"leave_gap", "leave_unsettled", "remember_place", "__init__", "__iter__"}
    if sync.__name__ not in plain | BEGINNERS:
        assert inspect.iscoroutinefunction(other)
    else:
        assert not inspect.iscoroutinefunction(other)
    assert not inspect.iscoroutinefunction(sync)


def test_pairs_are_many_and_from_both_faces() -> None:
    names = {param.id for param in pairs()}
    assert len(names) > 40
    assert {"Publisher.send", "Subscriber.pull", "Message.ack", "Pipeline.__exit__"} <= names
    assert (pipeline.Pipeline, messages.Batch) == (mbctl.Pipeline, mbctl.Batch)
    assert subscriber.Subscriber is mbctl.Subscriber


def test_public_names_are_those_of_the_classes() -> None:
    assert sorted(aio.__all__) == sorted([*KINDS, "Following", "FollowingBatches"])


def test_sync_face_does_without_asyncio() -> None:
    code = "import sys, mbctl; mbctl.Publisher, mbctl.Subscriber, mbctl.Admin; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "mbctl.client.sync" in modules
    assert not {"asyncio", "mbctl.aio", "mbctl.server"} & set(modules)
