"""The client library: one base, and the faces on it. ``sync`` blocks on a plain socket."""
