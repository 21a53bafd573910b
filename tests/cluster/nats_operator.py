"""A nats-server of an operator: who connects shows the token of a user, and signs with its key."""

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import nkeys
from broker_process import wait_until

from mbctl.cluster.processes import server_binary

_NO_BOUND = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
_STORAGE = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


class Identity:
    """A key pair and the token that somebody above has signed for it."""

    def __init__(self, prefix: int, claims: dict[str, Any], above: "Identity | None") -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), prefix)
        self._pair = nkeys.from_seed(self.seed)
        self.public = self._pair.public_key.decode()
        issuer = above or self
        claims = {
            **{"jti": uuid4().hex, "iat": int(time.time()), "iss": issuer.public},
            **{"sub": self.public, "name": "test", "nats": {**claims, "version": 2}},
        }
        head = _encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
        self.token = f"{signed}.{_encoded(issuer._pair.sign(signed.encode()))}"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class OperatorServer:
    """A nats-server that lets in who has credentials of its account, and the file of some."""

    def __init__(self, directory: Path) -> None:
        operator = Identity(nkeys.PREFIX_BYTE_OPERATOR, {"type": "operator"}, None)
        limits = {**_NO_BOUND, "wildcards": True}
        system = {"type": "account", "limits": limits}
        account = {"type": "account", "limits": {**limits, **_STORAGE}}
        self._system = Identity(nkeys.PREFIX_BYTE_ACCOUNT, system, operator)
        self._account = Identity(nkeys.PREFIX_BYTE_ACCOUNT, account, operator)
        self.credentials = directory / "mbctl.creds"
        self.credentials.write_text(self._credentials())
        ports = directory / "ports"
        ports.mkdir()
        configuration = directory / "nats.conf"
        configuration.write_text(
            f"""
            listen: "127.0.0.1:-1"
            ports_file_dir: "{ports}"
            operator: {operator.token}
            system_account: {self._system.public}
            resolver: MEMORY
            resolver_preload: {{
              {self._system.public}: {self._system.token}
              {self._account.public}: {self._account.token}
            }}
            jetstream {{ store_dir: "{directory / "store"}" }}
            """
        )
        self._process = subprocess.Popen(
            [server_binary(), "-c", str(configuration), "-l", str(directory / "log")]
        )
        (written,) = wait_until(lambda: list(ports.glob("*.ports")))
        said = wait_until(lambda: written.read_text())
        self.url: str = json.loads(said)["nats"][0]

    def _credentials(self) -> str:
        claims = {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
        user = Identity(nkeys.PREFIX_BYTE_USER, claims, self._account)
        parts = (("NATS USER JWT", user.token), ("USER NKEY SEED", user.seed.decode()))
        return "\n".join(
            f"-----BEGIN {what}-----\n{text}\n------END {what}------\n" for what, text in parts
        )

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
