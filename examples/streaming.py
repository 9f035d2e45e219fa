"""Streaming, both ways: an answer that is read as it comes, and a body that is sent as it is made.

    disco dev --nodes 1 --port 2379                     in one terminal: a real etcd, where the examples look for one
    python examples/service_starlette.py streams        in a second: an instance of 'streams'
    python examples/streaming.py                        in a third

Starlette's, because http.server does not understand bodies of unknown length.
"""

import time
from collections.abc import Iterator

from discoclient import DiscoClient

PIECE = b"x" * 65536
PIECES = 160


def body() -> Iterator[bytes]:
    """10 MiB, of which no more than a piece is in memory."""
    for _ in range(PIECES):
        yield PIECE


def main() -> None:
    with DiscoClient("streams") as client:
        began = time.monotonic()
        # The request counts as in flight, and its connection is taken, until the block ends.
        with client.stream("GET", "/count", params={"to": 5}) as response:
            for line in response.iter_lines():
                print(f"{time.monotonic() - began:.1f} s: {line}", flush=True)

        # A body that is an iterator can be sent once. If the connection can't be made, another instance gets it; once some of
        # it was sent, there is no second attempt, whatever the method.
        response = client.post("/measure", content=body())
        print(f"sent {len(PIECE) * PIECES} bytes, and {response.json()['bytes']} arrived")


if __name__ == "__main__":
    main()
