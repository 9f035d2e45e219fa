"""Everything that discoclient can be made to say, with every logger at DEBUG and asyncio in its debug mode.

Secrets come by the environment: ``$DISCO_REGISTRY`` and ``$WRONG_REGISTRY`` hold a good and a wrong password, ``$HEADER`` is an
``Authorization`` header. With ``--control`` it says some of them aloud, as a careless program would.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Callable

import httpx

from discoclient import AsyncDiscoClient, DiscoClient, aregister, connect, register
from discoclient.cli import main as disco
from discoclient.control.hub import hub

GOOD, WRONG, HEADER = (os.environ[name] for name in ("DISCO_REGISTRY", "WRONG_REGISTRY", "HEADER"))
PATIENCE = 0.3
HEADERS = {"Authorization": HEADER, "Cookie": HEADER}


def attempt(call: Callable[[], object]) -> None:
    """Show what comes back, or the traceback with all its causes and notes."""
    try:
        print(repr(call()))
    except Exception:
        traceback.print_exc()


def with_password(password: str) -> list[str]:
    """Addresses that are wrong in all kinds of ways, and hold a password."""
    return [
        f"etcd://user:{password}@host:99999",
        f"etcd://user:{password}@host:1,ho st",
        f"etcd://user:{password}@",
        f"etcd://user:{password}@[::1",
        f"etcd://user:{password}@host:1/no prefix",
        f"etcd://user:{password}@host:1?unknown=1",
        f"etcd://user:{password}@host:1?hostnames=7",
        f"etcd://user:{password}#x@host:1",
        f"etcd://user:{password}/x@host:1",
        f"etcd://user:{password}?x@host:1",
        f"etcd://{password}@host:1",
        f"etcd:/user:{password}@host:1",
        f"postgres://user:{password}@host:1",
        f"etcds://user:{password}@host:1?ca=/nowhere.pem",
        f"user:{password}@host:1",
        password,
    ]


def use(address: str) -> None:
    """All the doors, in order and out of order."""
    with (
        DiscoClient("experiment", registry=address, discovery_timeout=PATIENCE) as client,
        DiscoClient("experiment", registry=address, discovery_timeout=PATIENCE, engine="httpcore") as other,
        connect(address, discovery_timeout=PATIENCE) as handle,
    ):
        for path in ("/", "/redirect", "/close", "/?q=1"):
            attempt(lambda path=path: client.get(path, headers=HEADERS, follow_redirects=True))
        attempt(lambda: client.post("/close", headers=HEADERS, content=b"x"))
        attempt(lambda: other.get("/", headers=HEADERS))  # which logs on its own
        attempt(
            lambda: DiscoClient("nobody", registry=address, discovery_timeout=PATIENCE).get(
                "/", headers=HEADERS
            )
        )
        attempt(lambda: client.get("/").extensions["disco"])
        attempt(handle.services)
        attempt(lambda: handle.instances("experiment"))
        attempt(handle.members)
        attempt(lambda: next(handle.watch("experiment")))
        attempt(lambda: handle.resolver("experiment"))
        for thing in (
            client,
            client._disco,
            client._disco._router,
            handle,
            handle.address,
            str(handle.address),
        ):
            attempt(lambda thing=thing: thing)
    attempt(lambda: use_registration(address))
    attempt(lambda: asyncio.run(use_async(address)))
    attempt(lambda: (hub(), vars(hub())))


def use_registration(address: str) -> object:
    with register("experiment", 9, host="127.0.0.1", registry=address, quiet=0, timeout=2) as registration:
        registration.set_ready(False)
        return registration, registration.instance, vars(registration)


async def use_async(address: str) -> object:
    async with (
        AsyncDiscoClient("experiment", registry=address, discovery_timeout=PATIENCE) as client,
        aregister("experiment", 9, host="127.0.0.1", registry=address, quiet=0, timeout=2) as registration,
    ):
        return await client.get("/", headers=HEADERS), client, registration


def use_the_command_line() -> None:
    commands = [
        ["doctor"],
        ["--registry", WRONG, "doctor"],
        ["--registry", WRONG, "ls"],
        ["ls", "experiment", "--json"],
        ["get", "experiment", "/", "--header", f"Authorization: {HEADER}"],
        ["get", "experiment", "/close", "--header", f"Authorization: {HEADER}"],
        *(
            ["--registry", address, "ls"]
            for address in with_password(WRONG.partition("user:")[2].partition("@")[0])
        ),
    ]
    for command in commands:
        print("disco:", disco(command))


def main() -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    if "--control" in sys.argv:
        logging.getLogger("hpack").setLevel(logging.DEBUG)
        logging.getLogger("careless").debug("using %s with %s", GOOD, httpx.Headers(HEADERS).raw)
    use(GOOD)
    if "--control" not in sys.argv:
        use(WRONG)
        password = WRONG.partition("user:")[2].partition("@")[0]
        for address in with_password(password):
            attempt(lambda address=address: DiscoClient("experiment", registry=address).get("/"))
            attempt(lambda address=address: connect(address).instances("experiment"))
            attempt(
                lambda address=address: register(
                    "experiment", 9, host="127.0.0.1", registry=address, timeout=0.1
                )
            )
        use_the_command_line()
    print("done")


if __name__ == "__main__":
    main()
