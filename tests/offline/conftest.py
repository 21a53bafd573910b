"""The tests of verify and repair damage what the tests of the journal make."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "journal"))
