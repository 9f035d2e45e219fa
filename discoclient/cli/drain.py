"""``disco drain`` and ``disco weight``: asking one instance, through the registry, to retire or to have another share."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic, sleep
from typing import Annotated

import typer

from ..control.hub import hub
from ..model.errors import ConfigError
from ..model.instance import State, check_service
from ..registry.asked import Asked, Retirement
from ..serving.asking import Found, LastReady, NotThere, ask, find, find_spare
from .errors import Failure
from .output import clean, emit, remark
from .session import Session

__all__ = ["choose", "drain", "weight"]

ANSWER_TIMEOUT = 5.0
"""Seconds that an instance may take to do what it is asked before it is said that it hasn't."""
LOOK_AGAIN = 0.1
SHORTEST = 4
"""Characters of an id that are enough to name it, if no other one begins with them."""


def drain(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its id, or how that begins.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also the last instance that is ready: callers will get errors.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is gone.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Shown there, and in 'disco deploys'.")
    ] = "",
) -> int:
    """Ask an instance to retire.

    It says that it drains, its callers turn away, what is in flight ends, and it leaves: by itself, wherever it runs. Nobody is
    killed. What leads is the registration: a service under 'disco run' stops, one that registered itself does what its
    'on_retire' says.

    The last instance that is ready is refused, as callers would get errors; --force asks it all the same.

    \b
    Examples:
      disco drain experiment 0f3c8a1b
      disco drain experiment 0f3c8a1b --wait --reason "host is being replaced"

    \b
    Exit codes:
      0  it was asked (with --wait: and is gone)
      1  there is no such instance, or it is the last one
      2  wrong usage
      4  the registry could not be reached
    """
    session: Session = ctx.obj
    desk = _Desk(session, service)
    chosen = choose(desk.find(), instance, service)
    retirement = Retirement(reason=reason, by=f"disco drain, {_who()}")
    desk.ask(
        chosen,
        lambda asked: asked if asked.retire is not None else replace(asked, retire=retirement),
        may_be_last=force,
    )
    name = f"{service} {chosen.instance.id} ({chosen.instance.address})"
    is_heard = desk.wait(
        lambda now: now is None or now.instance.state is State.DRAINING, chosen, ANSWER_TIMEOUT
    )
    if not is_heard:
        remark(f"{name} was asked, and has not said yet that it drains")
    else:
        emit(f"draining {name}")
    if wait:
        desk.wait(lambda now: now is None, chosen, None)
        emit(f"gone {name}")
    return 0


def weight(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its id, or how that begins.")],
    number: Annotated[
        float, typer.Argument(metavar="N", min=0, max=10_000, help="0 to 10000; 100 is what all begin with.")
    ],
) -> int:
    """Change an instance's share of the requests.

    Beside others of weight 100, one of 5 gets a twentieth of what they get; one of 0 is called only if nothing else is left.

    \b
    Examples:
      disco weight experiment 0f3c8a1b 5

    \b
    Exit codes:
      0  it was asked
      1  there is no such instance
      2  wrong usage
      4  the registry could not be reached
    """
    session: Session = ctx.obj
    desk = _Desk(session, service)
    chosen = choose(desk.find(), instance, service)
    wanted = int(number) if number.is_integer() else number
    desk.ask(chosen, lambda asked: replace(asked, weight=wanted))
    name = f"{service} {chosen.instance.id} ({chosen.instance.address})"
    is_heard = desk.wait(
        lambda now: now is not None and now.instance.weight == wanted, chosen, ANSWER_TIMEOUT
    )
    if is_heard:
        emit(f"weight {wanted:g} for {name}, it was {chosen.instance.weight:g}")
    else:
        remark(f"{name} was asked for a weight of {wanted:g}, and has not taken it on yet")
    return 0


def choose(found: Sequence[Found], id: str, service: str) -> Found:
    """The one whose id is *id*, or begins with it. Raises `Failure`."""
    matching = [each for each in found if each.instance.id == id] or [
        each for each in found if len(id) >= SHORTEST and each.instance.id.startswith(id)
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(each.instance.id for each in matching)
        raise Failure(f"{len(matching)} instances of {service} begin with {clean(id)!r}: {ids}")
    ids = ", ".join(each.instance.id for each in found)
    there = f"there are {ids}" if ids else "it has no instances"
    raise Failure(f"there is no instance {clean(id)!r} of {service}; {there}")


class _Desk:
    """What is asked of the registry, and waited for."""

    def __init__(self, session: Session, service: str) -> None:
        self.service = check_service(service)
        address = session.address
        if address.scheme == "static":
            raise ConfigError(f"{session.source}: nobody can be asked anything in static://, which is fixed")
        self._address = address
        self._hub = hub()
        self._registry = self._hub.registry(address)

    def find(self) -> list[Found]:
        keys, hostnames = self._address.keys, self._address.hostnames
        return self._hub.background.run(find(self._registry, keys, self.service, hostnames=hostnames))

    def ask(self, chosen: Found, change: Callable[[Asked], Asked], *, may_be_last: bool = True) -> None:
        id, address, registry = chosen.instance.id, self._address, self._registry

        async def spares() -> Mapping[str, int]:
            hostnames = address.hostnames
            return await find_spare(registry, address.keys, self.service, id, hostnames=hostnames)

        asking = ask(registry, address.keys, self.service, id, change, spares=None if may_be_last else spares)
        try:
            self._hub.background.run(asking)
        except NotThere as error:
            raise Failure(f"{error} any more") from error
        except LastReady as error:
            raise Failure(str(error)) from error

    def wait(self, is_so: Callable[[Found | None], bool], chosen: Found, timeout: float | None) -> bool:
        """Until it *is_so* of the instance as it is now, or of its absence; whether it came to that."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            now = next((each for each in self.find() if each.instance.id == chosen.instance.id), None)
            if is_so(now):
                return True
            if deadline is not None and monotonic() >= deadline:
                return False
            sleep(LOOK_AGAIN)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = "unknown user"
    return f"{user} on {socket.gethostname()}"
