"""CRC-32C of records, segments and snapshots, from the package ``crc32c``.

Its compiled part is loaded by itself: the package asks for its own version first, which takes
longer than anything else in the start of a server.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crc32c import crc32c as crc32c


def _compiled() -> Any:
    name = "crc32c._crc32c"
    package = PathFinder.find_spec("crc32c")
    spec = package and PathFinder.find_spec(name, package.submodule_search_locations)
    if "crc32c" in sys.modules or spec is None or spec.loader is None:
        # Others have it already, or it is made in another way.
        import crc32c

        return crc32c
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if not TYPE_CHECKING:
    crc32c = _compiled().crc32c
