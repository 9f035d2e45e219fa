"""What the stories of deploys have in common."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from discoclient import DiscoClient, Instance
from discoclient.registry.codec import encode
from tests.faults.raw import RawKey
from tests.running.keys import Event, Keys
from tests.running.stage import SLOW, Deploy
from tests.support.eventually import eventually
from tests.support.load import Load

__all__ = ["HOST", "LONG", "V1", "V2", "control_of", "controls", "ends", "load", "position", "put_v1"]

HOST = ("--hostname", "web-3")
V1 = (*HOST, "--version", "1")
V2 = (*HOST, "--version", "2", "--replace", "--bake", "0.3")
LONG = "60"


@contextmanager
def load(client: DiscoClient, *methods: str, rate: float = 30.0) -> Iterator[list[Load]]:
    """Requests of each of *methods*, none of which may fail."""
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(client, rate=rate, method=method)) for method in methods]
        yield loads
    for each in loads:
        each.assert_none_failed()


def controls(keys: Keys) -> list[Event]:
    """Every control key that was ever put."""
    return [event for event in keys.history() if "/control/" in event.key and event.value is not None]


def put_v1(keys: Keys, service: str = "experiment", **fields: str) -> Instance:
    """An instance of the host that nobody stands behind: it does nothing of what it is asked."""
    plain = Instance(service=service, id=uuid.uuid4().hex, host="127.0.0.1", port=9)
    instance = replace(plain, **{"hostname": "web-3", "slot": "0"} | fields)  # type: ignore[arg-type]
    keys.put(keys.keys.instance(service, instance.id), encode(instance), lease=keys.grant(600))
    return instance


def ends(run: Deploy, *, within: float) -> bool:
    """Whether it ends in that time."""
    try:
        eventually(lambda: not run.process.is_running, timeout=within)
    except AssertionError:
        return False
    return True


def control_of(keys: Keys, id: str) -> RawKey:
    """The instance's control key, waited for."""
    found = eventually(lambda: keys.control(id), timeout=SLOW, what=f"{id} is asked for something")
    assert found is not None
    return found


def position(events: list[Event], id: str, what: str, state: str = "") -> int:
    """Where in the history the instance's first key of that kind (and state) stands."""
    return next(
        number
        for number, event in enumerate(events)
        if f"/{what}/" in event.key
        and event.key.endswith(id)
        and event.value is not None
        and (not state or event.value["state"] == state)
    )
