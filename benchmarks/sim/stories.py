"""The four deployment stories, over every balancer: what callers see while clients deploy, servers deploy, a service
shrinks, or grows.

Instances that leave drain: they say so in the registry, go on serving, and stop when they have been quiet for a while.
Newcomers are cold: half as fast in the beginning. One request in five is not idempotent. The controls are the same deploy
without care: processes that are ended without a word, and callers that try nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from discoclient.balancing.balancer import BALANCERS
from discoclient.calling.ledger import Policies
from discoclient.model.policy import OutlierPolicy, SlowStartPolicy

from .measure import imbalance, summarize
from .report import Plan, Report, Table, milliseconds, number, percent
from .servers import Mode, Server
from .work import lognormal
from .world import Result, Setup, World, simulate

__all__ = ["STORIES", "Story", "run", "tell"]

MEAN = 0.04
WORKERS = 4
EACH = WORKERS / MEAN
CLIENTS = 10
BEGIN = 15.0
"""When it begins: by then nobody is new to anybody."""
COLD = 3.0
"""Seconds for which a newcomer does half of what it will."""
BAKE = 1.5
"""Seconds between a newcomer's registration and its predecessor's drain."""
QUIET = 1.0
"""Seconds without a request, and with none left, after which a draining one stops."""
LEASE = 15.0
"""Seconds for which the registry goes on listing one that died."""
WINDOW = 2.0
"""Seconds over which shares are compared."""


@dataclass(frozen=True, slots=True)
class Careful:
    """``drains``: whether who leaves says so, and waits."""

    drains: bool = True


@dataclass(frozen=True, slots=True)
class Story:
    """``instances`` at first; ``rate``: requests a second. It takes from `BEGIN` to ``end``."""

    instances: int
    rate: float
    end: float
    script: Callable[[World, Careful], None]


def clients_deploy(world: World, careful: Careful) -> None:
    """One process after the other is replaced by one that knows nothing yet."""
    for place in range(CLIENTS):
        world.loop.at(BEGIN + 2.0 * place, world.add_client, place)


def servers_deploy(world: World, careful: Careful) -> None:
    """One instance after the other: the new one first, then the old one goes."""
    for index, server in enumerate(list(world.servers.values())):
        world.loop.at(BEGIN + 4.0 * index, _replace, world, server, careful)


def shrink(world: World, careful: Careful) -> None:
    """Half of them go at once."""
    servers = list(world.servers.values())
    for server in servers[len(servers) // 2 :]:
        world.loop.at(BEGIN, _leave, world, server, careful)


def expand(world: World, careful: Careful) -> None:
    """As many as there are come at once."""
    for _ in range(len(world.servers)):
        world.loop.at(BEGIN, _join, world)


STORIES: Mapping[str, Story] = {
    "clients deploy": Story(8, 0.6 * 8 * EACH, BEGIN + 2.0 * CLIENTS, clients_deploy),
    "servers deploy": Story(8, 0.6 * 8 * EACH, BEGIN + 4.0 * 8, servers_deploy),
    "shrink": Story(8, 0.7 * 4 * EACH, BEGIN + LEASE + 1.0, shrink),
    "expand": Story(4, 0.7 * 4 * EACH, BEGIN + 12.0, expand),
}


def run(plan: Plan) -> Report:
    rows: list[Sequence[str]] = []
    data: dict[str, object] = {}
    balancers = ("peak_ewma",) if plan.is_quick else tuple(BALANCERS)
    for name, told in STORIES.items():
        story = replace(told, rate=told.rate / 5) if plan.is_quick else told
        rows += [_row(name, story, balancer, plan.seed, data) for balancer in balancers]
        if name in ("servers deploy", "shrink"):
            for label, drains, retries in (
                ("peak_ewma, nobody drains", False, None),
                ("peak_ewma, nobody drains, no retries or ejection", False, 0),
            ):
                rows.append(_row(name, story, "peak_ewma", plan.seed, data, label, drains, retries))
        if name == "expand":
            rows.append(
                _row(name, story, "peak_ewma", plan.seed, data, "peak_ewma, no slow start", slow_start=False)
            )
    table = Table(
        "Deployments: what callers see",
        (
            "",
            "failed",
            "p99 meanwhile, ms",
            "p99 otherwise, ms",
            "p99.9 meanwhile, ms",
            "most at one",
            "attempts",
        ),
        rows,
        [_ABOUT],
    )
    return Report("stories", [table], data)


_ABOUT = (
    f"*most at one*: the most that one instance got in {WINDOW:g} s meanwhile, in multiples of the mean of all that were "
    "ready; while some are new the others get more by intent (slow start). What is named beside a balancer is a control."
)


def tell(
    story: Story,
    balancer: str,
    seed: str,
    *,
    drains: bool = True,
    retries: int | None = None,
    slow_start: bool = True,
) -> tuple[Result, Mapping[str, tuple[float, float]]]:
    """The run, and from when to when each instance was ready."""
    ready: dict[str, tuple[float, float]] = {}

    def script(world: World) -> None:
        world.notes = ready
        for id in world.servers:
            ready[id] = (0.0, world.setup.seconds)
        story.script(world, Careful(drains))

    setup = Setup(
        seed=f"{seed}/stories",
        balancer=balancer,
        servers=story.instances,
        clients=CLIENTS,
        rate=story.rate,
        seconds=story.end + 10.0,
        work=lognormal(MEAN, 0.8),
        workers=WORKERS,
        script=script,
        policies=Policies() if retries is None else Policies(outlier=OutlierPolicy(max_ejected=0.0)),
        retries=retries,
        slow_start=SlowStartPolicy() if slow_start else SlowStartPolicy(window=0.0),
        unsafe=0.2,
    )
    return simulate(setup), ready


def _row(
    name: str,
    story: Story,
    balancer: str,
    seed: str,
    data: dict[str, object],
    label: str | None = None,
    drains: bool = True,
    retries: int | None = None,
    slow_start: bool = True,
) -> Sequence[str]:
    result, ready = tell(story, balancer, seed, drains=drains, retries=retries, slow_start=slow_start)
    during = summarize(result.samples, after=BEGIN, before=story.end)
    around = [each for each in result.samples if not BEGIN <= each.due < story.end and each.due >= 5.0]
    outside = summarize(around)
    worst = imbalance(result, ready, window=WINDOW, after=BEGIN, before=story.end)
    failed = sum(each.error is not None for each in result.samples)
    full = f"{name}: {label or balancer}"
    data[full] = {
        "failed": failed,
        "requests": result.made,
        "during": during.to_json(),
        "outside": outside.to_json(),
        "most": worst,
        "begin": BEGIN,
        "end": story.end,
        "p99": [
            summarize(result.samples, after=moment, before=moment + WINDOW).p99
            for moment in _windows(story.end + 10.0)
        ],
    }
    return (
        full,
        f"{failed} ({percent(failed / result.made)})" if failed else "0",
        milliseconds(during.p99),
        milliseconds(outside.p99),
        milliseconds(during.p999),
        number(worst),
        f"{during.attempts:.3f}",
    )


def _windows(seconds: float) -> Sequence[float]:
    return [WINDOW * index for index in range(int(seconds / WINDOW))]


# ---- what instances do


def _join(world: World) -> Server:
    server = world.add_server(speed=0.5)
    world.loop.after(COLD, _warm, server)
    world.notes[server.instance.id] = (world.loop.now, world.setup.seconds)
    world.registry.put(server.instance)
    return server


def _warm(server: Server) -> None:
    server.change(speed=1.0)


def _replace(world: World, old: Server, careful: Careful) -> None:
    _join(world)
    world.loop.after(BAKE, _leave, world, old, careful)


def _leave(world: World, server: Server, careful: Careful) -> None:
    id = server.instance.id
    world.notes[id] = (world.notes[id][0], world.loop.now)
    if careful.drains:
        world.registry.drain(id)
        world.loop.after(QUIET, _stop_if_quiet, world, server)
    else:
        server.crash()
        world.loop.after(LEASE, world.registry.remove, id)


def _stop_if_quiet(world: World, server: Server) -> None:
    last = server.arrivals[-1] if server.arrivals else 0.0
    if server.load or world.loop.now - last < QUIET:
        world.loop.after(0.1, _stop_if_quiet, world, server)
        return
    world.registry.remove(server.instance.id)
    server.mode = Mode.DEAD
