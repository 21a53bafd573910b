"""A server on a bad disk; run as ``python -m crashes.server SETTINGS`` with JSON settings."""

import sys
from typing import Any

import msgspec

from crashes import disks
from crashes.disks import Kill
from mbctl import MbctlError, files
from mbctl.model import MIB


class Settings(msgspec.Struct, kw_only=True):
    """The server's options, and what is wrong with its disk."""

    data: str
    port: int = 0
    sync: str = "always"
    segment_bytes: int | None = None
    snapshot_bytes: int | None = None
    max_bytes: int | None = 512 * MIB
    kill: Kill | None = None
    power_cut: bool = False
    """Whether what is not synced is gone when the process is."""
    skips_fdatasync: bool = False
    acknowledges_early: bool = False
    sync_ms: float = 0.0
    """How much longer a sync takes."""
    read_ms: float = 0.0

    def disk(self) -> type[files.Disk]:
        """The disk that is as bad as all that."""
        bases: list[type[files.Disk]] = []
        settings: dict[str, Any] = {}
        if self.kill is not None:
            bases.append(disks.KillingDisk)
            settings["kill"] = self.kill
        if self.sync_ms:
            bases.append(disks.SlowDisk)
            settings["sync_s"] = self.sync_ms / 1000
        if self.read_ms:
            bases.append(disks.SlowReadingDisk)
            settings["read_s"] = self.read_ms / 1000
        if self.power_cut:
            bases.append(disks.PowerCutDisk)
            settings["skips_fdatasync"] = self.skips_fdatasync
        return type("BadDisk", tuple(bases or [files.Disk]), settings)


class _Watch:
    """Passes on what is printed, and notices the ready line."""

    def __init__(self, stdout: Any) -> None:
        self._stdout = stdout

    def write(self, text: str) -> int:
        if "ready" in text:
            # Before anybody can know: what comes now is no recovery any more.
            disks.KillingDisk.is_ready = True
        return int(self._stdout.write(text))

    def flush(self) -> None:
        self._stdout.flush()


def main() -> int:
    """Serve, as ``mbctl server`` does."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    # The server makes its own disk, from this class.
    files.Disk = settings.disk()  # type: ignore[misc]
    from mbctl.server import ServerOptions, run

    if settings.acknowledges_early:
        disks.EarlyAcknowledgements.install()
    sys.stdout = _Watch(sys.stdout)
    options = ServerOptions(
        port=settings.port,
        data=settings.data,
        sync=settings.sync,
        segment_bytes=settings.segment_bytes,
        snapshot_bytes=settings.snapshot_bytes,
        max_bytes=settings.max_bytes,
    )
    try:
        return run(options)
    except MbctlError as error:
        print(f"mbctl: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
