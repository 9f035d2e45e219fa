"""A balancer of one's own: all requests to the eldest instance, the others stand by.

    disco dev --nodes 1 --port 2379             in one terminal: a real etcd, where the examples look for one
    python examples/service_http_server.py      in a second and a third: two instances of 'experiment'
    python examples/custom_balancer.py          in a fourth

For a service whose instances each warm up a cache, say, and of which one is enough. Kill the eldest while this runs (kill -9):
the next in line takes over.
"""

import sys
import time
from collections.abc import Container, Sequence
from random import Random

from discoclient import DiscoClient, Endpoint


class Eldest:
    """A balancer builds a picker whenever the set of instances changes. Here is time to sort."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> "EldestPicker":
        return EldestPicker(
            sorted(endpoints, key=lambda endpoint: (endpoint.instance.registered_at or "", endpoint.id))
        )


class EldestPicker:
    """A picker chooses, for each attempt. It must not wait: it is called in the middle of a request."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        left = [endpoint for endpoint in self._endpoints if endpoint.id not in tried]
        # Ejected: it failed lately and is to be left alone for a while. If all are, one of them is better than none.
        able = [endpoint for endpoint in left if not endpoint.is_ejected(now)]
        return next(iter(able or left), None)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with DiscoClient("experiment", balancer=Eldest()) as client:
        for _ in range(count):
            instance = client.get("/").extensions["disco"].instance
            print(f"answered by {instance.address}, there since {instance.registered_at}", flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
