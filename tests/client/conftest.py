"""What the tests of the client share: both faces, a publisher, and a proxy that can be cut.

The tests in the modules of ``BOTH_FACES`` are written for the sync face and run for the
asyncio face too, made to block: the names ``Publisher``, ``Subscriber`` and ``Admin`` in their
modules are then its classes.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import blocking_aio
import pytest
import uvloop
from cutting_proxy import CuttingProxy

import mbctl

BOTH_FACES = {
    "test_client_admin",
    "test_client_connecting",
    "test_client_exactly_once",
    "test_client_follow",
    "test_client_follow_batches",
    "test_client_publisher",
    "test_client_subscriber",
}

# What is about threads, signals and forks, looks inside, or relies on replies being looked at
# only in calls: the sync face alone.
SYNC_ONLY = {
    "test_a_publisher_closed_in_its_pipeline_tells_that_the_outcome_is_unknown",
    "test_a_publisher_in_a_forked_child_is_another_session",
    "test_a_publisher_serves_several_threads",
    "test_ctrl_c_in_a_pull_leaves_the_subscriber_usable_and_loses_nothing",
    "test_ctrl_c_in_a_send_leaves_the_publisher_usable",
    "test_leaving_many_follows_leaves_nothing_behind",
    "test_pipelines_of_several_threads_go_side_by_side",
    "test_the_proxy_itself_cuts_where_it_is_told",
    "test_two_processes_share_the_work_and_one_gets_the_leases_of_the_other_that_is_killed",
    "test_two_threads_in_one_subscriber_are_told",
    "test_what_an_interrupted_pull_was_to_acknowledge_the_next_one_does",
}


# What waits for time to pass, and so is left to the slow run for the second face.
WAITING = {
    "test_a_connection_cut_during_an_explicit_ack_loses_nothing",
    "test_a_follow_that_waits_goes_on_at_the_server_that_comes_back",
    "test_a_killed_server_is_found_again",
    "test_a_publisher_registers_wherever_the_connection_is_cut",
    "test_a_pull_that_is_repeated_waits_only_for_what_is_left_of_its_time",
    "test_a_pull_that_waits_at_a_stopping_server_is_answered",
    "test_a_restarted_server_is_found_within_the_timeout",
    "test_a_send_is_stored_once_when_the_reconnects_are_cut_as_well",
    "test_a_send_without_an_answer_has_an_unknown_outcome",
    "test_a_server_that_is_gone_for_longer_than_the_timeout_is_told",
    "test_a_window_larger_than_what_a_connection_lasts_for_gets_through",
    "test_a_wrong_address_is_told_within_seconds",
    "test_an_answer_that_does_not_come_in_time_is_told",
    "test_an_extended_lease_does_not_run_out",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for both faces where it is about both."""
    name = metafunc.function.__name__
    if metafunc.module.__name__ in BOTH_FACES and name not in SYNC_ONLY:
        marks = [pytest.mark.slow] if name in WAITING else []
        metafunc.parametrize("face", ["sync", pytest.param("aio", marks=marks)], indirect=True)


# For all tests: pytest forgets the parameters of a fixture that a test does not ask for.
@pytest.fixture(autouse=True)
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Which face the clients of this test are of."""
    face: str = getattr(request, "param", "sync")
    if face == "aio":
        for name in ("Publisher", "Subscriber", "Admin"):
            if hasattr(request.module, name):
                monkeypatch.setattr(request.module, name, getattr(blocking_aio, name))
    yield face
    if face == "aio":
        # Nothing goes on in the background.
        assert blocking_aio.tasks() == 0


InLoop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.slow)])
def in_loop(request: pytest.FixtureRequest) -> InLoop:
    """Run a coroutine in a loop of its own, of either kind, and see that nothing is left of it."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(main: Coroutine[Any, Any, None]) -> None:
        troubles: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, c: troubles.append(c))
            await main
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(watched())
        # What was not closed says so when it is collected, and every warning is an error.
        gc.collect()
        assert troubles == []

    return run


@pytest.fixture
def publisher(server: str, face: str) -> Iterator[mbctl.Publisher]:
    """A publisher at the shared server."""
    kind = mbctl.Publisher if face == "sync" else blocking_aio.Publisher
    with kind(server) as publisher:
        yield publisher  # type: ignore[misc]


@pytest.fixture
def reader(server: str, filled: str, face: str) -> Iterator[mbctl.Subscriber]:
    """A subscriber named "reader" that is subscribed to the module's filled topic."""
    kind = mbctl.Subscriber if face == "sync" else blocking_aio.Subscriber
    with kind(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        yield subscriber  # type: ignore[misc]


@pytest.fixture
def proxy(server: str) -> Iterator[CuttingProxy]:
    """A proxy before the shared server."""
    proxy = CuttingProxy(server)
    yield proxy
    proxy.close()
