"""Sans-I/O: frames, messages, and the session of either end. No sockets, no clock."""
