"""What confd did in 2014: ``python -m benchmarks.deploy_renderer REGISTRY FOLDER PORT kill`` (or ``term SECONDS``)

Two templates. One makes nginx's upstream of ``port/current``, checks it (``nginx -t``) and reloads; the other makes ``kill -9``
of ``pid/previous`` and runs it. FOLDER and PORT are those of a running nginx (`deploy_nginx`).

Where the original leaves something open, what follows is the friendlier reading of it:

- It polled every five seconds. This watches, so a deploy does not wait for the next poll.
- Nothing orders its two templates; watched, each runs when its key changes. Here they run one after the other, the reload
  always first, and the kill when ``nginx -s reload`` has returned.

``term SECONDS`` is what a careful operator makes of it: the previous version gets SIGTERM in place of ``kill -9``, so many
seconds after the reload, and only if nginx took the new upstream. It then finishes what it has in flight.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from .bare_etcd import BareEtcd
from .deploy_keys import ROOT, key
from .deploy_nginx import Nginx

__all__ = ["Renderer"]

_PORT, _PID = key("port", "current"), key("pid", "previous")


class Renderer:
    """The two templates. *end* is told the pid of the previous version, when it is its turn; *nginx* is on the new one by then.

    Like confd it acts when what it would write is different from what it wrote before.
    """

    def __init__(self, nginx: Nginx, end: Callable[[int], None], *, is_careful: bool) -> None:
        self._nginx = nginx
        self._end = end
        self._is_careful = is_careful
        self._is_taken = True
        self._previous: str | None = None

    def begin(self, values: Mapping[str, str]) -> None:
        """Know what stands there already, without acting on it."""
        self._previous = values.get(_PID)

    def apply(self, values: Mapping[str, str]) -> None:
        port, previous = values.get(_PORT), values.get(_PID)
        if port is not None and self._nginx.render(int(port)):
            self._is_taken = self._nginx.check() and self._nginx.reload()
        if previous is not None and previous != self._previous:
            self._previous = previous
            if self._is_taken or not self._is_careful:
                self._end(int(previous))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def _render(registry: str, nginx: Nginx, pause: float | None) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)  # nothing is ever sent: readable means ended

    def terminate_later(pid: int) -> None:
        def terminate() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

        loop.call_later(pause or 0.0, terminate)

    end = _kill if pause is None else terminate_later
    renderer = Renderer(nginx, end, is_careful=pause is not None)
    async with BareEtcd(registry) as etcd:

        async def values() -> dict[str, str]:
            return {each.key.decode(): each.value.decode() for each in await etcd.list(ROOT)}

        async def follow() -> None:
            async for response in etcd.watch(ROOT):
                if response.created:
                    renderer.begin(await values())
                    print(json.dumps({"ready": True}), flush=True)
                else:
                    renderer.apply(await values())

        following = asyncio.create_task(follow())
        ending = asyncio.create_task(over.wait())
        await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
            raise SystemExit("etcd ended the watch")
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


def main() -> None:
    registry, folder, port, how, *seconds = sys.argv[1:]
    pause = float(seconds[0]) if how == "term" else None
    asyncio.run(_render(registry, Nginx(Path(folder), int(port)), pause))


if __name__ == "__main__":
    main()
