"""What a nats-server of the cluster is told: its configuration file."""

import json
from collections.abc import Sequence

import msgspec

from mbctl.model import MIB

# Room for a batch of 8 MiB, which is a frame of the protocol, and its headers.
MAX_PAYLOAD = 8 * MIB + 64 * 1024


class Node(msgspec.Struct, frozen=True):
    """One nats-server: its name and its ports, all of them on the loopback."""

    name: str
    port: int
    """Where clients connect."""
    route_port: int
    """Where the others connect."""
    monitor_port: int
    """Where it says how it is, as HTTP."""


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """Who may connect, and how; by default everybody on this machine, in the clear."""

    user: str | None = None
    password: str | None = None
    certificate: str | None = None
    """The file of its certificate; with ``key`` and ``authority`` it speaks TLS."""
    key: str | None = None
    authority: str | None = None


def text_of(node: Node, nodes: Sequence[Node], *, sync: str, security: Security) -> str:
    """The configuration of ``node`` among ``nodes``; its files are in the working directory."""
    user, password = security.user or "mbctl", security.password or ""
    lines = [
        f"server_name: {node.name}",
        f"listen: 127.0.0.1:{node.port}",
        f"http: 127.0.0.1:{node.monitor_port}",
        f"max_payload: {MAX_PAYLOAD}",
        "max_pending: 256MB",
        f"jetstream {{ store_dir: {json.dumps(node.name)}, sync_interval: {json.dumps(sync)} }}",
        # So that a server of mbctl can ask how durable an acknowledgement is.
        "system_account: SYS",
        "accounts {",
        '  SYS { exports: [{ service: "$SYS.REQ.SERVER.PING.VARZ", response: stream }] }',
        "  MBCTL {",
        "    jetstream: enabled",
        f"    users: [{{ user: {json.dumps(user)}, password: {json.dumps(password)} }}]",
        '    imports: [{ service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ" } }]',
        "  }",
        "}",
    ]
    if security.user is None:
        lines.append(f"no_auth_user: {user}")
    if security.certificate is not None:
        files = (security.certificate, security.key, security.authority)
        certificate, key, authority = map(json.dumps, files)
        lines.append(f"tls {{ cert_file: {certificate}, key_file: {key}, ca_file: {authority} }}")
    if len(nodes) > 1:
        routes = ", ".join(f"nats://127.0.0.1:{other.route_port}" for other in nodes)
        lines.append(
            f"cluster {{ name: mbctl, listen: 127.0.0.1:{node.route_port}, routes: [{routes}] }}"
        )
    return "".join(f"{line}\n" for line in lines)
