"""The shared core library: a pure state machine.

No I/O, no clock, no randomness, no logging, no async. Methods take ``now_ns`` (monotonic
nanoseconds), change state at once and return what the caller must do. Batches are known
here by place, count and size, never by bytes.

Read ``broker`` first: it owns all state and has the verbs. Below it:

    topic          one log: what is kept of it, who reads it, what may be reclaimed
    index          from offset to batch, in arrays
    subscription   one subscriber's place in a topic: cursor, acknowledged ranges, leases
    leases         the table of leases and their three states
    changes        what is to be stored of acknowledgements, and what that gives up
    grant          what a pull gets, and how its bounds are filled
    publisher      the answers kept so that a send can be retried
    members        the reading processes
    pulls          the pulls that wait
    heap           the lowest number at hand, for deadlines and cursors
"""
