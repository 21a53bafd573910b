"""Looks after a data directory that no server uses: verify and repair."""
