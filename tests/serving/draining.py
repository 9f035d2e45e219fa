"""A world of callers and instances that drain, in which the order of what happens is chosen from outside.

The parts are the real ones: the publisher and its endpoints, presence values, the drain, and the store that real etcd is
compared with. What is modelled is the order: each action is one step that can't be divided in reality either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from discoclient import Instance, State
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.ticket import Ticket
from discoclient.control.publisher import Publisher
from discoclient.model.snapshot import Snapshot
from discoclient.registry.codec import decode, encode
from discoclient.registry.keys import Keys
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.presence import Presence, decode_presence, encode_presence
from discoclient.registry.protocol import Entry
from discoclient.serving.drain import Drain, Drained

SERVICE = "experiment"
KEYS = Keys()
TIMEOUT = 20.0
PREFIX, CLIENTS = KEYS.service(SERVICE), KEYS.clients(SERVICE)


@dataclass(frozen=True)
class Rules:
    """What a caller keeps to. Each of them is needed: see the controls at the end."""

    announces_first: bool = True
    counts_first: bool = True
    publishes_first: bool = True
    tells_what_it_waits_for: bool = True


class World:
    def __init__(self, *, quiet: float = 0.0) -> None:
        """*quiet* is 0 where only proofs are to end a drain."""
        self.quiet = quiet
        self.now = 0.0
        self.store = MemoryStore()
        self.callers: list[Caller] = []
        self.servers: list[Server] = []


@dataclass
class Pick:
    """A request on its way: chosen, then counted and looked at (or the other way round), then sent."""

    endpoint: Endpoint
    ticket: Ticket | None = None
    has_looked: bool = False
    is_sent: bool = False


class Caller:
    def __init__(self, world: World, rules: Rules) -> None:
        self.world = world
        self.rules = rules
        self.id = f"caller-{len(world.callers):04}"
        self.key = KEYS.client(SERVICE, self.id)
        self.lease, _ = world.store.grant(10**6, world.now)
        self.publisher = Publisher(
            SERVICE, clock=lambda: world.now, rng=Random(1), post=lambda function: function()
        )
        self.is_announced = self.is_dead = False
        self.revision = 0  # of what was read
        self.applied = 0  # of what was published
        self.unpublished: list[tuple[int, dict[str, Instance], set[str]]] = []
        self.picks: list[Pick] = []
        self.picked = 0
        self.written = b""
        world.callers.append(self)

    @property
    def knows(self) -> bool:
        return self.revision > 0

    @property
    def has_news(self) -> bool:
        """Whether there is something to read."""
        store = self.world.store
        return not self.knows or any(True for _ in store.batches(PREFIX, self.revision))

    def pick(self, id: str) -> Pick:
        pick = Pick(self.publisher.endpoints[id])
        self.picks.append(pick)
        self.picked += 1
        return pick

    def announce(self) -> None:
        self.is_announced = True
        self.write(Presence(id=self.id))

    def read(self) -> None:
        """The first list, or the next revision of the watch."""
        store = self.world.store
        if not self.knows:
            listing = store.list(PREFIX)
            self.revision = listing.revision
            known = {entry.key[len(PREFIX) :]: _instance(entry) for entry in listing.entries}
            self.unpublished.append((self.revision, known, set(known)))
        else:
            batch = next(iter(store.batches(PREFIX, self.revision)), None)
            if batch is None:
                return
            last = self.unpublished[-1][1] if self.unpublished else self._published()
            known, changed = dict(last), set()
            for change in batch.changes:
                id = change.key[len(PREFIX) :]
                changed.add(id)
                if isinstance(change, Entry):
                    known[id] = _instance(change)
                else:
                    known.pop(id, None)
            self.revision = batch.revision
            self.unpublished.append((self.revision, known, changed))
        if self.rules.publishes_first:
            self.publish()

    def publish(self) -> None:
        for revision, known, changed in self.unpublished:
            before = self._published()
            drained = {
                id
                for id in changed
                if id not in known and id in before and before[id].state is State.DRAINING
            }
            self.publisher.publish(Snapshot(SERVICE, revision, known), changed, drained)
            self.applied = revision
        self.unpublished = []

    def acknowledge(self) -> None:
        applied = self.applied if self.rules.publishes_first else self.revision
        busy = self.publisher.busy() if self.rules.tells_what_it_waits_for else {}
        self.write(Presence(id=self.id, applied=applied, busy=busy))

    def write(self, presence: Presence) -> None:
        value = encode_presence(presence)
        if value != self.written:
            self.written = value
            self.world.store.put(self.key, value, lease=self.lease)

    def step(self, pick: Pick) -> None:
        """The next of: count, look, send. A pick that finds its endpoint leaving is given up."""
        if pick not in self.picks:
            return
        order = (self._count, self._look) if self.rules.counts_first else (self._look, self._count)
        done = (pick.ticket is not None) + pick.has_looked
        if done < 2:
            order[done](pick)
        elif not pick.is_sent:
            pick.is_sent = True
            server = next(each for each in self.world.servers if each.id == pick.endpoint.id)
            assert not server.is_stopped, f"{self.id} sent a request to {server.id}, which has stopped"

    def finish(self, pick: Pick) -> None:
        assert pick.ticket is not None
        self.picks.remove(pick)
        pick.ticket.close()

    def die(self) -> None:
        self.is_dead = True
        self.world.store.revoke(self.lease)

    def _count(self, pick: Pick) -> None:
        pick.ticket = pick.endpoint.start(self.world.now)

    def _look(self, pick: Pick) -> None:
        pick.has_looked = True
        if pick.endpoint.is_retired:
            self.picks.remove(pick)
            if pick.ticket is not None:
                pick.ticket.close()

    def _published(self) -> dict[str, Instance]:
        snapshot = self.publisher.snapshot
        return dict(snapshot.by_id) if snapshot is not None else {}


class Server:
    def __init__(self, world: World) -> None:
        self.world = world
        self.id = f"server-{len(world.servers):04}"
        self.instance = Instance(service=SERVICE, id=self.id, host="10.0.0.1", port=8000 + len(world.servers))
        self.lease, _ = world.store.grant(10**6, world.now)
        self.drain: Drain | None = None
        self.drained: Drained | None = None
        self.seen: dict[str, Presence] | None = None
        self.revision = 0
        world.servers.append(self)
        self.write()

    @property
    def is_stopped(self) -> bool:
        return self.drained is not None

    @property
    def has_news(self) -> bool:
        """Whether there is something to look at."""
        return self.seen is None or any(True for _ in self.world.store.batches(CLIENTS, self.revision))

    def write(self) -> int:
        key = KEYS.instance(SERVICE, self.id)
        return self.world.store.put(key, encode(self.instance), lease=self.lease).revision

    def begin(self) -> None:
        self.instance = replace(self.instance, state=State.DRAINING)
        self.drain = Drain(self.id, quiet=self.world.quiet, timeout=TIMEOUT, now=self.world.now)
        self.drain.told(self.write(), self.world.now)

    def look(self) -> None:
        """The first list of the callers, or the next revision of the watch; what it saw may be old."""
        store = self.world.store
        if self.seen is None:
            listing = store.list(CLIENTS)
            self.revision = listing.revision
            self.seen = {entry.key: _presence(entry) for entry in listing.entries}
        else:
            batch = next(iter(store.batches(CLIENTS, self.revision)), None)
            if batch is None:
                return
            for change in batch.changes:
                if isinstance(change, Entry):
                    self.seen[change.key] = _presence(change)
                else:
                    self.seen.pop(change.key, None)
            self.revision = batch.revision
        assert self.drain is not None
        self.drain.saw(dict(self.seen))

    def judge(self) -> None:
        assert self.drain is not None
        self.drained = self.drain.verdict(self.world.now)
        if self.is_stopped:
            waiting = [
                caller.id
                for caller in self.world.callers
                for pick in caller.picks
                if pick.is_sent and pick.endpoint.id == self.id and not caller.is_dead
            ]
            assert not waiting or not self.drained.is_clean, f"{self.id} stopped on {waiting}"  # type: ignore[union-attr]
            self.world.store.revoke(self.lease)


def _instance(entry: Entry) -> Instance:
    return decode(entry.value, service=SERVICE, id=entry.key[len(PREFIX) :])


def _presence(entry: Entry) -> Presence:
    return decode_presence(entry.value, id=entry.key[len(CLIENTS) :])


Action = tuple[str, Callable[[], object]]


def actions(world: World, *, most_picks: int = 1, may_die: bool = False) -> Iterator[Action]:
    """All that may happen next, by names that stay the same when it is played again."""
    for caller in world.callers:
        if caller.is_dead:
            continue
        name = caller.id
        if caller.rules.announces_first and not caller.is_announced:
            yield f"{name} announces itself", caller.announce
        elif caller.has_news:
            yield f"{name} reads", caller.read
        if caller.knows and not caller.is_announced:
            yield f"{name} announces itself", caller.announce
        if caller.unpublished:
            yield f"{name} publishes", caller.publish
        if caller.is_announced and caller.knows:
            yield f"{name} acknowledges", caller.acknowledge
        for id in sorted(caller.publisher.endpoints) if caller.picked < most_picks else ():
            yield f"{name} picks {id}", partial(caller.pick, id)
        for number, pick in enumerate(caller.picks):
            if pick.is_sent:
                yield f"{name} gets answer {number}", partial(caller.finish, pick)
            else:
                yield f"{name} goes on with {number}", partial(caller.step, pick)
        if may_die:
            yield f"{name} dies", caller.die
    for server in world.servers:
        if server.is_stopped:
            continue
        if server.drain is None:
            yield f"{server.id} begins to drain", server.begin
            continue
        if server.has_news:
            yield f"{server.id} looks", server.look
        yield f"{server.id} judges", server.judge
