"""The processes of the million-message scenario; run as ``python million_parts.py ROLE ...``.

Each message is 100 bytes: which publisher, which number, and a filling made from both, so
that a subscriber can check every byte.
"""

import hashlib
import json
import sys
import time

from mbctl import Publisher, Subscriber

TOPIC = "million"
SIZE = 100


def payload(publisher: int, number: int) -> bytes:
    head = b"%d %d " % (publisher, number)
    return head + (b"%d" % (number * 2654435761)).rjust(SIZE - len(head), b".")


def publish(address: str, publisher: int, count: int) -> dict[str, float]:
    rows = [payload(publisher, number) for number in range(count)]
    with Publisher(address, name=f"publisher-{publisher}") as client:
        begin = time.time()
        with client.pipeline() as pipe:
            for row in rows:
                pipe.send(TOPIC, row)
        return {"begin": begin, "end": time.time(), "count": pipe.sent}


def subscribe(address: str, name: str, count: int) -> dict[str, object]:
    payloads: list[bytes] = []
    with Subscriber(address, name=name) as client:
        begin = time.time()
        while len(payloads) < count:
            batch = client.pull(TOPIC, max_messages=20_000, wait=30.0)
            if not batch:
                break
            payloads += batch.payloads
        end = time.time()
    return {"begin": begin, "end": end, "count": len(payloads)} | verdict(payloads)


def verdict(payloads: list[bytes]) -> dict[str, object]:
    """What is wrong with what was received; each publisher's digest if nothing is."""
    expected: dict[int, int] = {}
    digests: dict[int, hashlib._Hash] = {}
    wrong = 0
    for received in payloads:
        publisher, number, _ = received.split(b" ", 2)
        key = int(publisher)
        wrong += int(number) != expected.get(key, 0) or received != payload(key, int(number))
        expected[key] = int(number) + 1
        digests.setdefault(key, hashlib.sha256()).update(received)
    return {
        "wrong": wrong,
        "per_publisher": expected,
        "digests": {key: digest.hexdigest() for key, digest in digests.items()},
    }


if __name__ == "__main__":
    role, address, name, count = sys.argv[1:]
    if role == "publish":
        print(json.dumps(publish(address, int(name), int(count))))
    else:
        print(json.dumps(subscribe(address, name, int(count))))
