"""Findings of a demo in which all went well, as they would be measured; tests spoil one thing at a time."""

from __future__ import annotations

from discoclient.cli.demo_findings import Act, Call, Findings

FIRST = (105, 268, 308)
KILLED = 268
NEWCOMER = 489
ENDS = (3.0, 8.0, 10.0, 14.0, 18.0)
KILLED_AT, DEAD_AT, LEFT_AT = 3.01, 3.02, 6.2
JOINED_AT = 11.0
GONE_AT = 14.1

_TITLES = (
    "All is well",
    "An instance is killed",
    "A member of etcd is killed",
    "A new instance joins",
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
    found = list(FIRST)
    if at >= KILLED_AT:
        found.remove(KILLED)
    if at >= JOINED_AT:
        found.append(NEWCOMER)
    return found


def calls() -> tuple[Call, ...]:
    """Every 20 ms one, sync and async by turns, everybody by turns. One met the dead instance and was tried again."""
    made = []
    for step in range(round(ENDS[-1] / 0.02)):
        began = step * 0.02
        able = there(began)
        # by pairs, so that each kind of caller meets everybody
        number = able[step // 2 % len(able)]
        attempts = 2 if abs(began - 3.04) < 0.001 else 1
        made.append(Call("async" if step % 2 else "sync", began, began + 0.004, number, attempts))
    return tuple(made)


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
        gone_at=GONE_AT,
        ages=((14.1, 3.1), (15.1, 4.1), (16.1, 5.1), (18.0, 7.0)),
    )
