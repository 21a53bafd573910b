"""What a command does and how its answer looks; the one-shots and the shells share it.

Every verb is a function that takes a client, plain arguments and an ``Output``. Nothing
here parses command lines, and nothing here knows how a request travels.
"""
