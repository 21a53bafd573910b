"""``python -m mbctl``: the same as the command ``mbctl``."""

import sys

from mbctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
