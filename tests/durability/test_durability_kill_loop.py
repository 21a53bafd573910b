"""Kill -9 under load, with the ledger; and brokers that do lose, so that the ledger bites."""

from pathlib import Path
from typing import Any

import kill_loop
import pytest
from crashes.disks import PHASES
from crashes.processes import Failed


def run(directory: Path, *, kills: int, seed: int, **settings: Any) -> kill_loop.Tally:
    """What a kill loop found; a server that did not start is in there as well."""
    directory.mkdir(exist_ok=True)
    loop = kill_loop.KillLoop(directory, seed, kill_loop.small_server(directory, **settings))
    try:
        loop.run(kills)
    except Failed as error:
        loop.tally.examples.append(str(error))
        loop.tally.wrong["failed"] += 1
    return loop.tally


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_a_few_power_cuts(tmp_path: Path) -> None:
    tally = run(tmp_path, kills=5, seed=1, power_cut=True)
    assert tally.is_clean, tally.examples
    assert tally.kills.total() == 5
    assert tally.rounds == 1
    assert tally.audits >= 2
    assert tally.messages > 100


@pytest.mark.slow
@pytest.mark.parametrize(("power_cut", "kills"), [(False, 100), (True, 30)])
def test_nothing_acknowledged_is_lost_in_many_kills(
    power_cut: bool, kills: int, tmp_path: Path
) -> None:
    tally = run(tmp_path, kills=kills, seed=2, power_cut=power_cut)
    print(kill_loop.report(tally, 0.0))
    assert tally.is_clean, tally.examples
    assert tally.kills.total() == kills
    assert {phase: n for phase in PHASES if (n := tally.kills[phase]) < kills // 20} == {}
    assert tally.audits > kills / 4
    assert tally.messages > 50 * kills


def test_a_server_that_skips_fdatasync_loses_what_it_acknowledged_in_a_power_cut(
    tmp_path: Path,
) -> None:
    tally = run(tmp_path, kills=5, seed=3, power_cut=True, skips_fdatasync=True)
    assert tally.wrong["lost"] > 0, tally


def test_a_server_that_acknowledges_before_its_sync_loses_messages_in_a_power_cut(
    tmp_path: Path,
) -> None:
    """A cut has to fall between an acknowledgement and its sync: several are tried, if need be."""
    tallies = []
    for seed in range(4, 10):
        tally = run(
            tmp_path / str(seed),
            kills=5,
            seed=seed,
            power_cut=True,
            acknowledges_early=True,
            sync_ms=20.0,
        )
        if any(tally.wrong[kind] for kind in ("lost", "rebound", "undone")):
            return
        tallies.append(tally)
    pytest.fail(f"acknowledging early was not noticed: {tallies}")


@pytest.mark.slow
def test_a_server_that_is_slow_to_sync_and_honest_loses_nothing_in_a_power_cut(
    tmp_path: Path,
) -> None:
    tally = run(tmp_path, kills=5, seed=4, power_cut=True, sync_ms=20.0)
    assert tally.is_clean, tally.examples
