"""The two acts of the demo in which a new version is deployed on all hosts at once: a broken one, and one that works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..serving.drain import Drained
from .demo_actors import Run, Service, show_run
from .demo_callers import POST_EVERY
from .demo_deployed import Attempt, Deploy, Handover, enumerate_words
from .demo_scene import Scene

__all__ = ["play_deploy"]

DEPLOY_TIMEOUT = 30.0

Steps: TypeAlias = "list[tuple[Callable[[], float | None], Callable[[], str]]]"
"""What is waited for on one host, in its order: when it happened, if it did, and how to tell it."""


def play_deploy(scene: Scene, services: Sequence[Service]) -> Deploy:
    """*services* are those of version 1, one on each host. While this lasts, some of the requests are POSTs."""
    old = {service.number for service in services}
    broken, strangers = _play_broken(scene, old, [service.hostname for service in services])
    handovers = _play_takeover(scene, services)
    return Deploy(broken=broken, strangers=strangers, handovers=handovers, done=scene.stage.done)


def _play_broken(scene: Scene, old: set[int], hostnames: Sequence[str]) -> tuple[list[Attempt], list[int]]:
    stage, teller, roster = scene.stage, scene.teller, scene.roster
    scene.begin("A broken version 2 is deployed on all hosts")
    began = scene.acts[-1].began
    scene.callers.is_posting = True
    teller.say(f"from now on one request in {POST_EVERY} is a POST, which is to be done once")
    runs = [
        stage.launch_run(scene.registry, hostname, scene.plan.bake, is_broken=True) for hostname in hostnames
    ]
    teller.say(_tell_start(runs, scene.plan.bake))
    over: set[str] = set()

    def are_over() -> bool:
        for run in runs:
            if run.exit_code is not None and run.hostname not in over:
                over.add(run.hostname)
                teller.say(_tell_failure(run))
        return len(over) == len(runs)

    stage.wait_for(are_over, DEPLOY_TIMEOUT)
    stage.pause(scene.plan.after_broken)
    strangers = roster.seen_since(began) - old
    if not strangers and old <= roster.numbers:
        teller.say("nothing of it was ever registered; version 1 is as it was")
    scene.end()
    attempts = [Attempt(hostname=run.hostname, exit_code=run.exit_code, said=run.words.said) for run in runs]
    return attempts, sorted(strangers)


def _play_takeover(scene: Scene, services: Sequence[Service]) -> list[Handover]:
    stage, teller = scene.stage, scene.teller
    scene.begin("Version 2 is deployed on all hosts at once")
    runs = [stage.launch_run(scene.registry, service.hostname, scene.plan.bake) for service in services]
    teller.say(_tell_start(runs, scene.plan.bake))
    pairs = list(zip(services, runs, strict=True))
    waiting = [_steps(scene, service, run) for service, run in pairs]

    def are_over() -> bool:
        for steps in waiting:
            while (told := _next(steps)) is not None:
                teller.say(*told)
        return not any(waiting) or any(run.exit_code is not None for run in runs)

    stage.wait_for(are_over, DEPLOY_TIMEOUT)
    for run in runs:
        if run.exit_code is not None:
            teller.say(_tell_failure(run))
    if not any(waiting):
        left = (scene.roster.left_at(service.number) for service in services)
        teller.say("from now on version 2 answers everything", max(at for at in left if at is not None))
    stage.pause(scene.plan.after_deploy)
    scene.callers.is_posting = False
    scene.end()
    return [_handover(scene, service, run) for service, run in pairs]


def _steps(scene: Scene, service: Service, run: Run) -> Steps:
    roster, hostname, old, new = scene.roster, run.hostname, service.number, run.number

    def gone_at() -> float | None:
        is_over = service.process.poll() is not None and service.words.is_over
        return roster.left_at(old) if is_over else None

    def tell_gone() -> str:
        drained, code = _drained(service), service.process.returncode
        if drained is None:
            return f"{hostname}: {old} is gone; it had ended without a drain, with exit code {code}"
        return f"{hostname}: {_tell(drained)}; {old} ended by itself, exit code {code}"

    return [
        (lambda: roster.came_at(new), lambda: f"{hostname}: {new} is ready, and registered beside {old}"),
        (
            lambda: roster.drains_at(old),
            lambda: f"{hostname}: {old} was asked to retire, through the registry, and drains",
        ),
        (gone_at, tell_gone),
    ]


def _next(steps: Steps) -> tuple[str, float] | None:
    """What happened next, and when. Whatever should have come before it is waited for no longer."""
    for index, (when, tell) in enumerate(steps):
        if (at := when()) is not None:
            del steps[: index + 1]
            return tell(), at
    return None


def _handover(scene: Scene, service: Service, run: Run) -> Handover:
    roster = scene.roster
    return Handover(
        hostname=run.hostname,
        old=service.number,
        new=run.number,
        started_at=run.started_at,
        registered_at=roster.came_at(run.number),
        asked_at=roster.drains_at(service.number),
        left_at=roster.left_at(service.number),
        why=service.words.found.get("why", ""),
        drained=_drained(service),
        exit_code=service.process.poll(),
    )


def _drained(service: Service) -> Drained | None:
    said: dict[str, Any] | None = service.words.found.get("drained")
    return None if said is None else Drained(**said)


def _tell(drained: Drained) -> str:
    if not drained.is_clean:
        return f"the drain was not clean ({drained.problem})"
    who = f"{drained.callers} process{'' if drained.callers == 1 else 'es'}"
    return f"all callers ({who}) acknowledged in {drained.seconds:.1f} s"


def _tell_start(runs: Sequence[Run], bake: float) -> str:
    hostnames = enumerate_words(run.hostname for run in runs)
    return f"on {hostnames}, at the same moment:\n{show_run('web-N', bake)}"


def _tell_failure(run: Run) -> str:
    said = run.words.said[0] if run.words.said else ""
    return f'{run.hostname}: "{said}"; disco run ended with exit code {run.exit_code}'
