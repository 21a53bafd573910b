"""The shared core library: a pure state machine.

No I/O, no clock, no randomness, no logging, no async. Methods take ``now_ns`` (monotonic
nanoseconds), change state at once and return what the caller must do. Batches are known
here by place, count and size, never by bytes.

Read ``broker`` first: one object that owns all state and has the verbs, which are in modules
by what they are about, on the state in ``parts``:

    publishing     sessions, sends and topics; what is given up on demand
    subscribing    reading processes and their subscriptions: where they begin and are moved
    pulling        what a pull gets
    settling       acknowledging, giving back, keeping for longer
    redelivering   what was delivered as often as it may be: moved, parked, decided about
    restoring      what was before a restart

Below them:

    topic          one log: what is kept of it, who reads it, what all have read
    retention      what topics give up: what is read, too old, or has no room
    index          from offset to batch, in arrays
    subscription   what one subscriber is granted, settles and passes over in one topic
    place          its cursor, acknowledged ranges and leases, and the bound on these
    leases         the table of leases and their five states
    exhausted      what is on its way to a dead-letter topic
    changes        what is to be stored of acknowledgements, counts and what is given up
    grant          what a pull gets, and how its bounds are filled
    publisher      the answers kept so that a send can be retried
    members        the reading processes
    pulls          the pulls that wait
    heap           the lowest number at hand, for deadlines and cursors
"""
