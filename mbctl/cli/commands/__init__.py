"""One module for each command, imported when that command is run; each has an ``app``."""
