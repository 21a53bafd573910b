"""The engine on a NATS JetStream cluster: keeps nothing of its own on this machine.

    topic                   a stream ``mbctl_NAME``, its settings in the metadata
    batch                   one JetStream message, with the same bytes
    offset                  the stream's sequence and the place in the batch, in one number
    durable subscription    a durable pull consumer, which an entry in the bucket ``mbctl`` names
    ephemeral subscription  a consumer in the memory of one node
    acknowledgement         one of the consumer, and one in that entry, which counts
    part of a batch read    an entry of its own in that bucket
    reclaiming              a purge up to the lowest acknowledged place, by any server

Any number of servers serve the same topics side by side. Imported only when asked for.
"""
