"""The shared core library: a pure state machine.

No I/O, no clock, no randomness, no logging, no async. Methods take ``now_ns`` (monotonic
nanoseconds), change state at once and return what the caller must do. Batches are known
here by place, count and size, never by bytes.

Read ``broker`` first: it owns all state and has the verbs. ``topic`` is one log's index,
``subscription`` one subscriber's place in it, ``publisher`` the answers kept for retries.
"""
