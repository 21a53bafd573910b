"""Kill a broker under load, again and again, and compare a ledger with what it kept.

    python scripts/kill_loop.py --kills 1000

Publishers and subscribers go on through all kills and keep accounts of what was sent,
acknowledged, received and confirmed. Kills come at random moments, and aimed at each phase
of the server's work with its disk, recovery among them. Prints a table of what was hit and
of what is wrong, and exits with 1 if anything is. scripts/crashes/ has the parts.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec
from crashes.books import COUNTS
from crashes.disks import MOMENTS, PHASES, Kill
from crashes.processes import Failed, Server, free_port
from crashes.rounds import Round
from crashes.server import Settings

from mbctl import ConnectionLost, OutcomeUnknown, Timeout
from mbctl.model import KIB

RANDOM = "random"
# Up to which call of a phase a kill waits; they come at very different rates.
_CALLS_MAX = {
    **{"append": 60, "sync": 60, "roll": 14, "snapshot": 12},
    **{"reclaim": 4, "move": 14, "recovery": 60},
}
# How long a kill that is aimed at a phase waits for it.
_AIM_S = 2.0
# How long a server lives before a kill at random, at most.
_LIFE_S = 0.5
# How many of the kills are at random; of the servers that live at random how many are
# stopped in good order instead; and how often a killed recovery is killed again.
_RANDOM_SHARE = 0.35
_STOPS_SHARE = 0.25
_AGAIN_SHARE = 0.5
# A round has its own topics and its own ledger, which are compared and put away at its end.
_ROUND_KILLS = 20


class Tally(msgspec.Struct):
    """What a loop did and found."""

    kills: Counter[str] = msgspec.field(default_factory=Counter)
    """By phase, or ``random``."""
    hits: Counter[str] = msgspec.field(default_factory=Counter)
    """By phase, moment and call, as the dying servers reported it."""
    missed: int = 0
    """Kills that were aimed and came to nothing, so that they became random ones."""
    stops: int = 0
    audits: int = 0
    rounds: int = 0
    messages: int = 0
    wrong: Counter[str] = msgspec.field(default_factory=Counter)
    examples: list[str] = msgspec.field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.wrong.values())


class KillLoop:
    """Kills servers on one data directory. ``server`` has their settings."""

    def __init__(self, directory: Path, seed: int, server: Settings) -> None:
        self.tally = Tally()
        self._directory = directory
        self._seed = seed
        self._random = random.Random(seed)
        self._server = server
        self._report = directory / "hits"
        self._report.touch()
        self._round: Round | None = None
        self._is_recovering = False
        """Whether the last server was killed before it was ready."""

    def run(self, kills: int, end: float = float("inf")) -> Tally:
        """Kill so many times, or until ``time.monotonic()`` is ``end``.

        Raises:
            Failed: a server did not start, or ended by itself; the directory is as it was left.
        """
        try:
            while self._goes_on(kills, end) and self.tally.is_clean:
                most = min(kills, self.tally.kills.total() + _ROUND_KILLS)
                self._play_round(most, end)
        finally:
            self.tally.hits.update(self._report.read_text().splitlines())
        return self.tally

    def _goes_on(self, kills: int, end: float) -> bool:
        return self.tally.kills.total() < kills and time.monotonic() < end

    def _play_round(self, kills: int, end: float) -> None:
        ledger = self._directory / f"ledger-{self.tally.rounds}"
        self._round = Round(self.tally.rounds, self._seed, ledger)
        try:
            while self._goes_on(kills, end) and self._round.books.is_clean:
                self._live_once()
            # What is wrong is best looked at as it was found.
            if self._round.books.is_clean:
                self._finish_round()
        finally:
            self._round.abandon()
            self._close_books(self._round)
            self._round = None
        if self.tally.is_clean:
            shutil.rmtree(ledger)

    def _finish_round(self) -> None:
        assert self._round is not None
        server = self._start(None)
        assert server is not None
        with server:
            self._round.finish(server.address)
            self._stop(server)

    def _close_books(self, played: Round) -> None:
        books, tally = played.books, self.tally
        tally.rounds += 1
        tally.audits += played.audits
        tally.messages += books.messages_stored
        tally.wrong.update(books.counts)
        tally.examples += books.examples()

    # --- one life of a server -------------------------------------------------------------------

    def _live_once(self) -> None:
        assert self._round is not None
        phase = self._choose()
        server = self._start(self._kill_at(phase))
        if server is None:
            return
        with server:
            try:
                if not self._round.is_begun:
                    self._round.begin(server.address)
                else:
                    self._round.audit(server.address)
            except (ConnectionLost, OutcomeUnknown, Timeout):
                # It may have killed itself meanwhile, which is looked into below.
                pass
            if phase in (RANDOM, "recovery"):
                # A recovery that had fewer calls than were waited for is over by now.
                time.sleep(self._random.uniform(0, _LIFE_S))
            else:
                self._await_end(server)
            if phase == RANDOM and self._random.random() < _STOPS_SHARE:
                self._stop(server)
            else:
                self._bury(server, phase)

    def _choose(self) -> str:
        """The next phase to aim at: mostly the ones that were hit least, or none."""
        assert self._round is not None
        if not self._round.is_begun:
            return RANDOM
        if self._is_recovering and self._random.random() < _AGAIN_SHARE:
            return "recovery"
        if self._random.random() < _RANDOM_SHARE:
            return RANDOM
        fewest = min(self.tally.kills[phase] for phase in PHASES)
        return self._random.choice([p for p in PHASES if self.tally.kills[p] <= fewest + 1])

    def _kill_at(self, phase: str) -> Kill | None:
        if phase == RANDOM:
            return None
        most = _CALLS_MAX[phase]
        # The first calls of a phase are the ones that come for certain.
        count = self._random.randint(1, self._random.choice((3, most, most)))
        return Kill(phase, count, self._random.choice(MOMENTS), str(self._report))

    def _start(self, kill: Kill | None) -> Server | None:
        """Start a server; None if it was killed before it was ready."""
        server = Server(msgspec.structs.replace(self._server, kill=kill))
        self._is_recovering = not server.wait_ready()
        if not self._is_recovering:
            return server
        # Its threads may come to a later phase just before the ready line is out.
        if server.finish() != -9 or kill is None:
            if self._round is not None:
                self._round.find_nothing()
            raise Failed(f"the server did not start: {server.log}")
        self.tally.kills[kill.phase] += 1
        return None

    def _await_end(self, server: Server) -> None:
        """Wait until the server has killed itself, for a while."""
        end = time.monotonic() + _AIM_S
        while server.is_running and time.monotonic() < end:
            time.sleep(0.002)

    def _bury(self, server: Server, phase: str) -> None:
        is_missed = server.is_running
        code = server.kill()
        if code != -9:
            raise Failed(f"the server ended by itself with {code}: {server.log}")
        self.tally.missed += is_missed and phase != RANDOM
        self.tally.kills[RANDOM if is_missed else phase] += 1

    def _stop(self, server: Server) -> None:
        code = server.stop()
        if code != 0:
            raise Failed(f"the server stopped with {code}: {server.log}")
        self.tally.stops += 1


def small_server(directory: Path, **settings: object) -> Settings:
    """Settings with which everything happens often: small segments, many snapshots."""
    data = str(directory / "data")
    sizes = {"segment_bytes": 128 * KIB, "snapshot_bytes": 512 * KIB}
    return Settings(data=data, port=free_port(), **{**sizes, **settings})  # type: ignore[arg-type]


def report(tally: Tally, seconds: float) -> str:
    """The table at the end."""
    kills = tally.kills.total()
    lines = [
        f"{kills} kills in {seconds:.0f} s, {tally.stops} stops, {tally.rounds} rounds, "
        f"{tally.audits} audits, {tally.messages} messages acknowledged",
        "",
        "killed in     " + "  ".join(f"{p} {tally.kills[p]}" for p in (*PHASES, RANDOM)),
        f"              (aimed and missed, so random: {tally.missed})",
        *(f"  {count:6}  {hit}" for hit, count in sorted(tally.hits.items())),
        "",
        *(f"  {name:12} {tally.wrong[name]}" for name in COUNTS),
        *tally.examples,
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the loop that the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--power-cut", action="store_true", help="a kill also takes what was not synced"
    )
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mbctl-kill-loop-"))
    print(f"seed {asked.seed}, directory {directory}", flush=True)
    loop = KillLoop(directory, asked.seed, small_server(directory, power_cut=asked.power_cut))
    begin = time.monotonic()
    try:
        loop.run(asked.kills, begin + 60 * asked.minutes)
    except Failed as error:
        print(report(loop.tally, time.monotonic() - begin))
        print(f"failed: {error}\nthe directory is kept: {directory}")
        return 1
    print(report(loop.tally, time.monotonic() - begin))
    if not loop.tally.is_clean:
        print(f"the directory is kept: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
