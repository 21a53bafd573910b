"""Where the cluster is and how to get in: the text of ``--engine``.

    nats://[USER:PASSWORD@|TOKEN@]HOST:PORT[,HOST:PORT...][?creds=FILE&ca=FILE&cert=FILE&key=FILE]

With ``tls://`` instead of ``nats://``, or with ``ca``, it is TLS.
"""

from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from mbctl.errors import InvalidArgument

_SCHEMES = ("nats", "tls")
_DEFAULT_PORT = 4222
_FILES = {"creds": "credentials", "ca": "authority", "cert": "certificate", "key": "key"}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of a cluster, and who we are to them."""

    servers: tuple[str, ...]
    is_tls: bool = False
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: str | None = None
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __str__(self) -> str:
        """The servers, without what is secret."""
        return ",".join(self.servers)


def is_address(text: str) -> bool:
    """Whether that names a cluster."""
    return text.partition("://")[0] in _SCHEMES


def parse_address(text: str) -> Address:
    """Read the text of ``--engine``.

    Raises:
        InvalidArgument: it cannot be read, and why.
    """
    scheme, _, rest = text.partition("://")
    if scheme not in _SCHEMES:
        raise InvalidArgument(
            reason=f"--engine is local or nats://HOST:PORT[,HOST:PORT...], not {text[:80]!r}"
        )
    place, _, query = rest.partition("?")
    identity, _, hosts = place.rpartition("@")
    servers = tuple(_server(scheme, host) for host in hosts.split(","))
    user, colon, password = identity.partition(":")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _FILES:
            raise InvalidArgument(
                reason=f"--engine knows no {name[:40]!r}; after the ? it may have "
                f"{', '.join(_FILES)}"
            )
        options[_FILES[name]] = value
    if ("certificate" in options) != ("key" in options):
        raise InvalidArgument(reason="--engine needs both cert and key, or neither")
    return Address(
        servers=servers,
        is_tls=scheme == "tls",
        user=unquote(user) if colon else None,
        password=unquote(password) if colon else None,
        token=unquote(user) if user and not colon else None,
        **options,
    )


def _server(scheme: str, host: str) -> str:
    try:
        parts = urlsplit(f"{scheme}://{host.strip('/')}")
        port = parts.port or _DEFAULT_PORT
        name = parts.hostname
    except ValueError as error:
        raise InvalidArgument(reason=f"--engine: {host[:80]!r} is no HOST:PORT: {error}") from error
    if not name:
        raise InvalidArgument(reason=f"--engine: {host[:80]!r} is no HOST:PORT")
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
