"""Opening a data directory: what may be served, and what is said of it."""

import errno
from pathlib import Path

import pytest

from mbctl.server.starting import file_system_of, unusable

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
nas:/home /home nfs4 rw,vers=4.2 0 0
/dev/vdb /home/ann ext4 rw 0 0
tmpfs /mnt/two\\040words tmpfs rw 0 0
overlay /layered overlay rw 0 0
/dev/vdc /layered xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/mbctl", "ext4"),
        ("/", "ext4"),
        ("/home/bob/data", "nfs4"),
        ("/home", "nfs4"),
        ("/homes", "ext4"),
        ("/home/ann/data", "ext4"),
        ("/mnt/two words/data", "tmpfs"),
        ("/layered/data", "xfs"),
    ],
)
def test_a_directory_is_on_the_innermost_and_last_mount_above_it(directory: str, kind: str) -> None:
    assert file_system_of(Path(directory), MOUNTS) == kind


def test_a_system_that_tells_no_mounts_has_no_kind() -> None:
    assert file_system_of(Path("/data"), "") == ""


def test_an_unusable_directory_is_one_line_that_names_file_and_reason() -> None:
    error = OSError(errno.EACCES, "Permission denied", "/data/LOCK")
    assert str(unusable(Path("/data"), error)) == (
        "the data directory /data cannot be used: /data/LOCK: permission denied; "
        "mend that, or choose another --data"
    )


@pytest.mark.parametrize("filename", [None, "/data"])
def test_an_unusable_directory_is_named_once(filename: str | None) -> None:
    error = OSError(errno.EROFS, "Read-only file system", filename)
    assert str(unusable(Path("/data"), error)) == (
        "the data directory /data cannot be used: read-only file system; "
        "mend that, or choose another --data"
    )
