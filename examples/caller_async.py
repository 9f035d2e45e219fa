"""A caller in async code: many requests at once.

    disco dev --nodes 1 --port 2379             in one terminal: a real etcd, where the examples look for one
    python examples/service_starlette.py        in a second and a third: two instances of 'experiment'
    python examples/caller_async.py             in a fourth

How many requests to send can be given as an argument (100). The same works on trio, with trio.run(main) and a nursery.
"""

import asyncio
import sys
from collections import Counter

from discoclient import AsyncDiscoClient


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    answered: Counter[str] = Counter()

    async with AsyncDiscoClient("experiment", balancer="least_request") as client:
        await client.wait_ready(5.0)  # optional: fail here, and not at the first request

        async def call(number: int) -> None:
            response = await client.get(f"/users/{number}")
            response.raise_for_status()
            answered[response.extensions["disco"].instance.address] += 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(call(number))

    for address, times in answered.most_common():
        print(f"{address} answered {times} of {count}")


if __name__ == "__main__":
    asyncio.run(main())
