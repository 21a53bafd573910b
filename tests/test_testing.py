"""The pytest plugin, in runs of pytest of its own."""

import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import mbctl
from mbctl import Server

pytest_plugins = ["pytester"]

_IMPORTED = """
import sys
import pytest
before = set(sys.modules)
import mbctl.testing
print(*sorted(set(sys.modules) - before))
"""

_TWO_TESTS = """
import pytest
from mbctl import Admin, Publisher

addresses = []

@pytest.mark.parametrize("turn", [1, 2])
def test_send(mbctl_server, turn):
    addresses.append(mbctl_server.address)
    with Publisher(mbctl_server.address) as publisher, Admin(mbctl_server.address) as admin:
        assert admin.topics() == []
        assert admin.status().durability == "memory"
        assert publisher.create_topic("orders")
        assert publisher.send("orders", "one").offset == 0

def test_addresses_differ():
    assert len(set(addresses)) == 2
"""


def test_each_test_gets_a_fresh_broker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_TWO_TESTS)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=3)


def test_a_test_that_forgets_its_client_harms_nobody(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from mbctl import Publisher

        kept = []

        def test_forgets(mbctl_server):
            kept.append(Publisher(mbctl_server.address))

        def test_goes_on(mbctl_server):
            with Publisher(mbctl_server.address) as publisher:
                assert publisher.create_topic("orders")
            kept.pop().close()
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=2)


def test_fixture_is_listed_with_what_it_is(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--fixtures", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["mbctl_server*", "*A fresh broker in memory*"])


def test_example_of_the_manual_passes(pytester: pytest.Pytester) -> None:
    page = (Path(__file__).parents[1] / "docs" / "api" / "pytest.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    assert "def test_" in example
    pytester.makepyfile(example)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=example.count("def test_"))


def test_plugin_is_found_by_pytest() -> None:
    (found,) = entry_points(group="pytest11", name="mbctl")
    assert found.value == "mbctl.testing"


def test_plugin_costs_a_run_that_does_not_use_it_nothing() -> None:
    imported = subprocess.run(
        [sys.executable, "-c", _IMPORTED], capture_output=True, text=True, check=True
    ).stdout
    # The package and the plugin alone; in this environment pytest may have brought them already.
    assert set(imported.split()) <= {"mbctl", "mbctl.testing"}


def test_broker_is_ready_in_under_20_ms() -> None:
    assert mbctl.Publisher
    took_s = []
    for _ in range(20):
        begin = time.perf_counter()
        server = Server()
        server.start()
        took_s.append(time.perf_counter() - begin)
        server.stop()
    # The quickest of many, as other processes take their share of the machine.
    assert min(took_s) < 0.02
    print(f"ready in {min(took_s) * 1000:.1f} to {max(took_s) * 1000:.1f} ms")
