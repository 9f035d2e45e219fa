"""The shell: takes what the registry says, asks the machine what to do, does it, and tells about it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from discoclient.control.handle import RegistryHandle
from discoclient.control.resolver import Resolver
from discoclient.model.snapshot import Snapshot

from . import commands
from .files import Target
from .fleet import Fleet
from .job import Job
from .machine import Do, Machine
from .templates import RenderFailed, Template

__all__ = ["Renderer", "Told"]

LOOK_AROUND = 0.5
"""Seconds between looks at what nobody tells us."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened.

    ``kind``: ``written`` (and reloaded), ``unchanged``; ``empty`` (a service has no instance), ``back`` (it has some again);
    ``failed``, with the step in ``facts["step"]``. ``output`` is what a command said that failed.
    """

    kind: str
    text: str
    output: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_trouble(self) -> bool:
        return self.kind in ("failed", "empty")


class Renderer:
    """Keeps the files of a `Job` up to date from `run` to `stop`.

    Args:
        tell: is called with each thing that happens.
        look_around: is called now and then, at least every half second between two attempts.
    """

    def __init__(
        self,
        job: Job,
        handle: RegistryHandle,
        *,
        tell: Callable[[Told], None],
        look_around: Callable[[], None] = lambda: None,
    ) -> None:
        """Reads the templates. Raises `ConfigError`."""
        self._job = job
        self._handle = handle
        self._tell = tell
        self._look_around = look_around
        self._templates = [Template(each.template) for each in job.pairs]
        self._targets = [Target(each.out) for each in job.pairs]
        self._fleet = Fleet(job.services, allow_empty=job.allow_empty)
        self._machine = Machine(
            interval=job.interval,
            checks=job.check is not None,
            in_place=job.is_checked_in_place,
            reloads=job.reload is not None,
            owes=any(each.is_unproven for each in self._targets),
        )
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # may be put to from a signal's handler
        self._is_over = False
        self._seen: dict[str, Snapshot] = {}
        self._changed: list[Target] = []  # of the attempt under way
        self._counts: dict[str, int] = {}  # the instances of each service in it
        self._trouble: Told | None = None
        self._gaps: list[str] = []
        self._is_first = True

    def stop(self) -> None:
        """End `run` soon. Can be called from anywhere, a signal's handler included.

        A check under way is broken off; a reload under way has its time.
        """
        self._is_over = True
        self._wake.put(None)

    def run(self) -> bool:
        """Until `stop`, or the end of the first attempt. Whether the files are as they should be.

        Raises `DiscoveryTimeout` if the registry does not answer at the start, `ConfigError` if a file is somebody else's.
        """
        with ExitStack() as stack:
            for target in self._targets:
                stack.enter_context(target.claimed())
                stack.callback(target.drop)
            resolvers = [self._handle.resolver(service) for service in self._job.services]
            for resolver in resolvers:
                stack.callback(resolver.subscribe(lambda: self._wake.put(None)))
            self._await_first(resolvers)
            self._follow(resolvers)
        return self._trouble is None and not self._fleet.missing and not self._machine.owes

    def _await_first(self, resolvers: Sequence[Resolver]) -> None:
        """Until everything is known: a file of half of the services would be worse than yesterday's."""
        timeout = self._job.discovery_timeout
        deadline = monotonic() + timeout
        while not self._is_over:
            unknown = [each for each in resolvers if each.snapshot is None]
            if not unknown:
                return
            late = [each for each in unknown if each.refusal is not None or monotonic() >= deadline]
            if late:
                raise late[0].timed_out(timeout)
            self._sleep(deadline)

    def _follow(self, resolvers: Sequence[Resolver]) -> None:
        while not self._is_over or self._machine.is_committed:
            self._learn(resolvers)
            step = self._machine.next(monotonic())
            if step.do is not Do.WAIT:
                self._act(step.do)
            elif self._job.once:
                return
            else:
                self._look_around()
                self._sleep(step.until)

    def _learn(self, resolvers: Sequence[Resolver]) -> None:
        for resolver in resolvers:
            snapshot = resolver.snapshot
            if snapshot is None or self._seen.get(resolver.service) is snapshot:
                continue
            self._seen[resolver.service] = snapshot
            self._fleet.learn(snapshot)
            self._machine.changed()
        self._tell_of_gaps()

    def _tell_of_gaps(self) -> None:
        gaps = self._fleet.missing + self._fleet.held
        for service in (each for each in gaps if each not in self._gaps):
            if service in self._fleet.missing:
                text = (
                    f"{service} has no instance; nothing is written until it has one, or with --allow-empty"
                )
            else:
                text = f"{service} has no instance any more; its last ones stay in {self._job.names}"
            self._tell(Told("empty", text, facts={"service": service}))
        for service in (each for each in self._gaps if each not in gaps):
            self._tell(Told("back", f"{service} has instances again", facts={"service": service}))
        self._gaps = gaps

    def _sleep(self, until: float | None) -> None:
        left = LOOK_AROUND if until is None else min(LOOK_AROUND, max(0.0, until - monotonic()))
        try:
            self._wake.get(timeout=left)
            while True:  # however many changes, one look
                self._wake.get_nowait()
        except queue.Empty:
            pass

    # ---- the steps

    def _act(self, do: Do) -> None:
        if do is Do.RENDER:
            self._render()
            return
        problem = {
            Do.CHECK: self._check,
            Do.REPLACE: self._replace,
            Do.TAKE_BACK: self._take_back,
            Do.RELOAD: self._reload,
        }[do]()
        if problem is None:
            self._machine.passed(monotonic())
            if self._machine.is_idle and do is not Do.TAKE_BACK:
                self._settle()
        else:
            self._machine.failed(monotonic())
            if not self._is_over or do is not Do.CHECK:
                self._complain(problem)

    def _render(self) -> None:
        if self._fleet.missing:
            self._machine.failed(monotonic())
            return
        services = self._fleet.services
        self._counts = {name: len(service.instances) for name, service in services.items()}
        self._changed = []
        try:
            contents = [each.render(services) for each in self._templates]
            for target, content in zip(self._targets, contents, strict=True):
                if target.read() != content:
                    target.write(content)
                    self._changed.append(target)
        except (RenderFailed, OSError) as error:
            self._machine.failed(monotonic())
            text = str(error) if isinstance(error, RenderFailed) else f"can't write the new file: {error}"
            self._complain(self._failure("render", text))
            return
        self._machine.rendered(bool(self._changed), monotonic())
        if self._machine.is_idle:
            self._trouble = None
            if self._is_first or self._job.once:
                self._tell(Told("unchanged", f"{self._job.names}: as it should be already"))
        self._is_first = False

    def _check(self) -> Told | None:
        assert self._job.check is not None
        if self._job.is_checked_in_place or not self._changed:  # the latter: an earlier life replaced them
            files = [each.path for each in self._targets]
            files = files[:1] if self._job.is_checked_in_place else files
        else:
            files = [each.fresh for each in self._changed]
        for file in files:
            done = commands.run(
                self._job.check,
                file,
                timeout=self._job.timeout,
                clock=monotonic,
                is_over=lambda: self._is_over,
            )
            if done.problem:
                stays = f"{self._job.names}: the check failed ({done.problem}), the old file stays"
                return self._failure("check", stays, done.output)
        return None

    def _replace(self) -> Told | None:
        try:
            for target in self._changed:
                target.replace()
        except OSError as error:
            self._take_back()
            return self._failure("replace", f"{self._job.names}: can't be replaced: {error.strerror}")
        return None

    def _take_back(self) -> Told | None:
        try:
            for target in self._targets:
                target.take_back()
        except OSError as error:
            return self._failure(
                "take back", f"{self._job.names}: the old file can't be put back: {error.strerror}"
            )
        return None

    def _reload(self) -> Told | None:
        assert self._job.reload is not None
        done = commands.run(
            self._job.reload, self._targets[0].path, timeout=self._job.timeout, clock=monotonic
        )
        if done.problem:
            text = f"{self._job.names}: written, but the reload failed ({done.problem}); trying again"
            return self._failure("reload", text, done.output)
        return None

    def _settle(self) -> None:
        """All went well."""
        for target in self._targets:
            target.settle()
        self._trouble = None
        names = ", ".join(each.path.name for each in self._changed) or self._job.names
        what = ", ".join(f"{count} of {name}" for name, count in self._counts.items())
        how = "written and reloaded" if self._job.reload else "written"
        facts = {"files": [str(each.path) for each in self._changed], "instances": self._counts}
        self._tell(Told("written", f"{names}: {how} ({what})", facts=facts))

    @staticmethod
    def _failure(step: str, text: str, output: str = "") -> Told:
        return Told("failed", text, output, {"step": step})

    def _complain(self, trouble: Told) -> None:
        """Once: what is tried again and fails again in the same way is no news."""
        if trouble != self._trouble:
            self._tell(trouble)
        self._trouble = trouble
