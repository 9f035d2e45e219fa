"""Findings of a demo in which all went well, as they would be measured; tests spoil one thing at a time."""

from __future__ import annotations

from discoclient.cli.demo_deployed import Attempt, Deploy, Handover
from discoclient.cli.demo_findings import Findings
from discoclient.cli.demo_measures import Act, Call
from discoclient.serving.drain import Drained

FIRST = (105, 268, 308)
KILLED = 268
NEWCOMER = 489
OLD = (105, 489, 308)
NEW = (755, 822, 967)
ENDS = (3.0, 8.0, 10.0, 14.0, 16.0, 22.0, 26.0)
KILLED_AT, DEAD_AT, LEFT_AT = 3.01, 3.02, 6.2
JOINED_AT = 11.0
STARTED_AT, REGISTERED_AT, ASKED_AT, REPLACED_AT = 16.01, 17.5, 18.6, 19.7
GONE_AT = 22.1

_TITLES = (
    "All is well",
    "An instance is killed",
    "A member of etcd is killed",
    "A new instance joins",
    "A broken version is deployed",
    "A version is deployed",
    "No etcd",
)


def acts() -> tuple[Act, ...]:
    begins = (0.0, *ENDS[:-1])
    return tuple(
        Act(number, title, began, ended)
        for number, (title, began, ended) in enumerate(zip(_TITLES, begins, ENDS, strict=True), 1)
    )


def there(at: float) -> list[int]:
    """Who can answer a request that begins at this time."""
    if at >= REGISTERED_AT:
        return [*OLD, *NEW] if at < ASKED_AT else list(NEW)
    found = list(FIRST)
    if at >= KILLED_AT:
        found.remove(KILLED)
    if at >= JOINED_AT:
        found.append(NEWCOMER)
    return found


def calls() -> tuple[Call, ...]:
    """Every 20 ms one, sync and async by turns, everybody by turns. One met the dead instance and was tried again.

    During the deploys each fourth one is a POST.
    """
    made = []
    for step in range(round(ENDS[-1] / 0.02)):
        began = step * 0.02
        able = there(began)
        # by pairs, so that each kind of caller meets everybody, and sends POSTs
        number = able[step // 2 % len(able)]
        attempts = 2 if abs(began - 3.04) < 0.001 else 1
        post = step if ENDS[3] <= began < ENDS[5] and step // 2 % 4 == 0 else None
        caller = "async" if step % 2 else "sync"
        made.append(Call(caller, began, began + 0.004, number, attempts, post=post))
    return tuple(made)


def deploy() -> Deploy:
    hosts = ("web-1", "web-2", "web-3")
    return Deploy(
        broken=[
            Attempt(hostname=hostname, exit_code=3, said=("no such table", "disco: it was not ready"))
            for hostname in hosts
        ],
        strangers=(),
        handovers=[
            Handover(
                hostname=hostname,
                old=old,
                new=new,
                started_at=STARTED_AT,
                registered_at=REGISTERED_AT,
                asked_at=ASKED_AT,
                left_at=REPLACED_AT,
                why="replaced by 2 0f3c8a1b (asked by disco run on web-1)",
                drained=Drained(is_clean=True, seconds=1.04, callers=1),
                exit_code=0,
            )
            for hostname, old, new in zip(hosts, OLD, NEW, strict=True)
        ],
        done=[call.post for call in calls() if call.post is not None],
    )


def good() -> Findings:
    return Findings(
        etcd="etcd 3.5.1 (/usr/bin/etcd, from PATH)",
        calls=calls(),
        acts=acts(),
        ttl=3.0,
        first=FIRST,
        killed=KILLED,
        killed_at=KILLED_AT,
        dead_at=DEAD_AT,
        left_at=LEFT_AT,
        old_leader="m0",
        new_leader="m2",
        elected_after=0.4,
        newcomer=NEWCOMER,
        joined_at=JOINED_AT,
        deploy=deploy(),
        gone_at=GONE_AT,
        ages=((22.1, 3.1), (23.1, 4.1), (24.1, 5.1), (26.0, 7.0)),
    )
