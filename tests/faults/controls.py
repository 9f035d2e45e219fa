"""Negative controls: each takes one protection away, from one object or (`take_away`) from a whole process.

A scenario that passes without the protection that it is about proves nothing.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # not at run time: a program may have to take something away before it imports discoclient
    from discoclient import Registration
    from discoclient.control.resolver import Resolver
    from discoclient.registry.etcd.registry import EtcdRegistry

__all__ = [
    "believe_that_there_is_nothing",
    "clear_before_listing",
    "forget_when_the_watch_breaks",
    "forget_where_the_watch_was",
    "ignore_compaction",
    "ignore_rewind",
    "ignore_the_past",
    "take_away",
    "without_hasleader",
    "without_one_members_word",
    "without_own_key_watch",
    "without_repair_limit",
]

# ---- how a caller keeps knowing


def forget_when_the_watch_breaks(resolver: Resolver) -> None:
    """No registry, so nothing is there: "stale beats empty", taken away."""
    machine: Any = resolver._follower._machine
    broke = machine._broke

    def forget(error: Exception, now: float) -> Any:
        machine._records.replace(())
        return broke(error, now)

    machine._broke = forget


def ignore_compaction(resolver: Resolver) -> None:
    """Watch on from the same revision, whatever the registry says of it."""
    from discoclient import RegistryUnavailable

    machine: Any = resolver._follower._machine
    broke = machine._broke
    machine._broke = lambda error, now: broke(RegistryUnavailable(str(error)), now)
    ignore_the_past(resolver)


def clear_before_listing(resolver: Resolver) -> None:
    """A compaction empties the set, and the listing fills it again: what many watchers do."""
    from discoclient import RevisionCompacted

    machine: Any = resolver._follower._machine
    handle = machine.handle

    def clear(event: Any, now: float) -> Any:
        if isinstance(getattr(event, "error", None), RevisionCompacted):  # from the watch, or from a probe
            machine._records.replace(())
        return handle(event, now)

    machine.handle = clear


def ignore_rewind(resolver: Resolver) -> None:
    """A registry whose revision went back is taken for one that is merely quiet."""
    from discoclient.registry.protocol import Batch

    machine: Any = resolver._follower._machine
    received, probed = machine._received, machine._probed
    ignore_the_past(resolver)

    def receive(batch: Any, now: float) -> Any:
        return received(Batch(max(batch.revision, machine.revision), batch.changes), now)

    machine._received = receive
    machine._probed = lambda probe, after, now: [] if probe.revision < after else probed(probe, after, now)


def ignore_the_past(resolver: Resolver) -> None:
    """Nobody asks, when a watch is resumed, whether the registry's history is still the one that was known."""
    machine: Any = resolver._follower._machine
    broke, doubt = machine._broke, machine._doubt

    def forget(error: Exception, now: float) -> Any:
        asks = broke(error, now)
        machine._broke_at = None
        return asks

    machine._broke = forget
    machine._doubt = lambda kind, text: [] if kind == "rewound" else doubt(kind, text)


def without_one_members_word(resolver: Resolver) -> None:
    """Only a quorum's word counts, also at the start."""
    from discoclient.registry.happenings import Do

    machine: Any = resolver._follower._machine
    tick = machine.tick
    machine.tick = lambda now: [ask for ask in tick(now) if ask.what is not Do.LIST_STALE]


def believe_that_there_is_nothing(resolver: Resolver) -> None:
    """One member's empty word is taken for a quorum's."""
    from discoclient.registry.happenings import Phase

    machine: Any = resolver._follower._machine

    def believe(listing: Any, now: float) -> list[Any]:
        if machine.phase is Phase.EMPTY:
            machine._replace(listing)
            machine.phase = Phase.SUSPECT
            machine.is_stale = machine._is_news = True
        return []

    machine._listed_stale = believe


def forget_where_the_watch_was(registry: EtcdRegistry) -> None:
    """Every watch begins now, not where the last one ended."""
    watch = registry.watch
    registry.watch = lambda range, *, after: watch(range, after=-1)  # type: ignore[method-assign]


def without_hasleader(registry: EtcdRegistry) -> None:
    """Watch without the metadata that makes a member without a leader give up."""
    members: Any = registry._members
    begin = members.begin

    async def plain(purpose: Any) -> Any:
        member, channel, metadata = await begin(purpose)
        del metadata["hasleader"]
        return member, channel, metadata

    members.begin = plain


# ---- how a service lives


def without_own_key_watch(registration: Registration) -> None:
    """What was written is assumed to stand."""
    keeper: Any = registration._registrar._keeper
    keeper._seen = lambda *_: []


def without_repair_limit(registration: Registration) -> None:
    """Put the key back at once, however often."""
    keeper: Any = registration._registrar._keeper
    keeper._repairs = deque(maxlen=1_000_000)  # never exactly full


# ---- whole processes


def take_away(name: str) -> None:
    """Take the protection *name* away from this process, before it uses discoclient."""
    _PROCESS[name]()


def _new_lease() -> None:
    """A lease that is lost is not replaced."""
    from discoclient.serving.keeper import Keeper

    def lost(self: Any) -> list[Any]:
        self.lease = None
        self._is_present = False
        self._timers.clear()
        return []

    Keeper._lost = lost  # type: ignore[method-assign]


def _own_thread() -> None:
    """Renewals run on the application's own event loop."""
    import asyncio

    from discoclient.control.background import Background

    loop = asyncio.get_running_loop()
    Background._started = lambda self: setattr(self, "_loop", loop) or loop  # type: ignore[method-assign,func-returns-value]
    Background.is_running = True  # type: ignore[assignment,method-assign]
    Background.stop = lambda self, timeout: None  # type: ignore[method-assign]


def _fork_reset() -> None:
    """A forked child goes on with what it inherited."""
    assert "discoclient" not in sys.modules, "too late: the hub's hook is in place"
    register = os.register_at_fork

    def skip(**hooks: Callable[[], Any]) -> None:
        if "discoclient.control" not in str(sys._getframe(1).f_globals.get("__name__")):
            register(**hooks)

    os.register_at_fork = skip


def _exit_hook() -> None:
    """Nothing is done when the interpreter exits."""
    import atexit

    from discoclient.control import hub

    atexit.unregister(hub._close_at_exit)


def _kept_from_children() -> None:
    """A forked child of who lends keeps its lock and its connections."""
    from discoclient.registry.sharing import inheritance

    inheritance.keep_from_children.__code__ = (lambda descriptor: None).__code__


def _lenders_silence() -> None:
    """A process that lends and hangs is waited for."""
    from discoclient.registry.sharing import borrower

    borrower.SILENCE = borrower.ANSWER_TIMEOUT = 600.0


_PROCESS: dict[str, Callable[[], None]] = {
    "exit-hook": _exit_hook,
    "fork-reset": _fork_reset,
    "kept-from-children": _kept_from_children,
    "lenders-silence": _lenders_silence,
    "new-lease": _new_lease,
    "own-thread": _own_thread,
}
