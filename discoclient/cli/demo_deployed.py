"""What the demo saw of its two deploys, the broken one and the one that took over, and what it claims of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..serving.drain import Drained
from .demo_measures import Act, Call, Claim
from .errors import NOT_READY

__all__ = ["Attempt", "Deploy", "Handover", "deploy_as_json", "deploy_claims", "enumerate_words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A deploy of the broken version on one host. ``exit_code`` is that of ``disco run``, ``None`` if it had not ended;
    ``said`` what it said, and what its command did.
    """

    hostname: str
    exit_code: int | None
    said: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What became of one host: *old* is the number of version 1, *new* that of version 2. ``None``: it did not come to that.

    Times are of the monotonic clock, in seconds.
    """

    hostname: str
    old: int
    new: int
    started_at: float
    """When ``disco run`` was started."""
    registered_at: float | None
    """When the new one was in the registry, beside the old one."""
    asked_at: float | None
    """When the old one said there that it drains."""
    left_at: float | None
    """When the old one had left."""
    why: str
    """Why it retired, in the words of who asked for it through the registry."""
    drained: Drained | None
    exit_code: int | None
    """That of the old one's process, which nobody but itself has ended."""

    @property
    def is_clean(self) -> bool:
        """Whether the old one was asked to go, saw all its callers leave, and ended by itself."""
        return (
            self.why.startswith("replaced by 2 ")
            and self.drained is not None
            and self.drained.is_clean
            and bool(self.drained.callers)
            and self.exit_code == 0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """Both of them."""

    broken: Sequence[Attempt]
    strangers: Sequence[int]
    """The numbers that were registered while the broken version was deployed, and are not version 1's."""
    handovers: Sequence[Handover]
    done: Sequence[int]
    """What the POSTs carried that the services have done, in their own words: a number for each time."""

    @property
    def old(self) -> set[int]:
        return {each.old for each in self.handovers}

    @property
    def new(self) -> set[int]:
        return {each.new for each in self.handovers}


def deploy_claims(deploy: Deploy, calls: Sequence[Call], *, broken: Act, act: Act) -> list[Claim]:
    """*calls* are those of the whole demo; *broken* and *act* the acts of the two deploys."""
    return [
        _the_broken_one_changed_nothing(deploy, broken.calls(calls)),
        _the_deploy_failed_nothing(act.calls(calls)),
        _no_post_was_done_twice(deploy, calls),
        _the_old_ones_left_by_themselves(deploy),
        _all_at_once(deploy),
        _only_the_new_ones_answered(deploy, calls),
    ]


def deploy_as_json(deploy: Deploy) -> dict[str, Any]:
    """The findings for a program. Times in seconds, since ``disco run`` was started."""
    return {
        "broken": [
            {"hostname": each.hostname, "exit_code": each.exit_code, "said": list(each.said)}
            for each in deploy.broken
        ],
        "hosts": [_host_as_json(each) for each in deploy.handovers],
        "posts_done": len(deploy.done),
    }


def enumerate_words(words: Iterable[object]) -> str:
    """``1, 2 and 3``, or ``none``."""
    *others, end = [str(word) for word in words] or ["none"]
    return f"{', '.join(others)} and {end}" if others else end


# ---- the claims


def _the_broken_one_changed_nothing(deploy: Deploy, calls: Sequence[Call]) -> Claim:
    codes = [each.exit_code for each in deploy.broken]
    answers = sum(call.number in deploy.old for call in calls)
    held = bool(codes) and set(codes) == {NOT_READY} and not deploy.strangers
    if not held:
        seen = f"exit codes {enumerate_words(codes)}; {len(deploy.strangers)} registered"
    else:
        seen = f"exit code {NOT_READY} ({len(codes)} hosts), {_of(answers, len(calls))} answers by version 1"
    return Claim("A broken version 2 changed nothing", held and 0 < answers == len(calls), seen)


def _the_deploy_failed_nothing(calls: Sequence[Call]) -> Claim:
    failed = sum(bool(call.error) for call in calls)
    again = sum(call.attempts > 1 for call in calls)
    kinds = {(call.caller, call.post is None) for call in calls}
    return Claim(
        "The deploy failed no GET and no POST",
        len(kinds) == 4 and not failed,
        f"{len(calls):,} requests, {failed} failed, {again} tried again",
    )


def _no_post_was_done_twice(deploy: Deploy, calls: Sequence[Call]) -> Claim:
    sent = [call.post for call in calls if call.post is not None]
    times = Counter(deploy.done)
    twice = sum(number > 1 for number in times.values())
    return Claim(
        "Each POST was done once",
        bool(sent) and Counter(sent) == times,
        f"{len(sent):,} sent, {len(times):,} done, {twice} of them twice",
    )


def _the_old_ones_left_by_themselves(deploy: Deploy) -> Claim:
    text = "Version 1 saw its callers leave, and ended"
    clean = sum(each.is_clean for each in deploy.handovers)
    if not 0 < clean == len(deploy.handovers):
        return Claim(text, False, f"so it was on {clean} of {len(deploy.handovers)} hosts")
    longest = max(each.drained.seconds for each in deploy.handovers if each.drained is not None)
    return Claim(text, True, f"{clean} clean drains, {longest:.1f} s at most, exit code 0")


def _all_at_once(deploy: Deploy) -> Claim:
    text = "It was replaced on all hosts at once"
    ends = [(each.started_at, each.left_at) for each in deploy.handovers if each.left_at is not None]
    if not 0 < len(ends) == len(deploy.handovers):
        return Claim(text, False, f"it was gone from {len(ends)} of {len(deploy.handovers)} hosts")
    is_parallel = max(began for began, _ in ends) < min(left_at for _, left_at in ends)
    took = enumerate_words(f"{left_at - began:.1f}" for began, left_at in ends)
    return Claim(text, is_parallel, f"version 1 was gone after {took} s")


def _only_the_new_ones_answered(deploy: Deploy, calls: Sequence[Call]) -> Claim:
    text = "Since then version 2 answered everything"
    ends = [each.left_at for each in deploy.handovers if each.left_at is not None]
    if not 0 < len(ends) == len(deploy.handovers):
        return Claim(text, False, "version 1 is still there")
    later = [call for call in calls if call.began >= max(ends)]
    answers = Counter(call.number for call in later)
    by_new = sum(answers[number] for number in deploy.new)
    who = enumerate_words(sorted(number for number in answers if number is not None))
    return Claim(
        text,
        0 < by_new == len(later) and answers.keys() == deploy.new,
        f"{_of(by_new, len(later))} answers, by {who}",
    )


# ---- formats


def _of(part: int, whole: int) -> str:
    return f"{part:,}" if part == whole else f"{part:,} of {whole:,}"


def _host_as_json(handover: Handover) -> dict[str, Any]:
    drained = handover.drained
    return {
        "hostname": handover.hostname,
        "version_1": handover.old,
        "version_2": handover.new,
        "registered_after": _after(handover, handover.registered_at),
        "draining_after": _after(handover, handover.asked_at),
        "gone_after": _after(handover, handover.left_at),
        "why": handover.why,
        "drain_clean": drained is not None and drained.is_clean,
        "drain_seconds": round(drained.seconds, 4) if drained is not None else None,
        "callers_acknowledged": drained.callers if drained is not None and drained.is_clean else None,
        "exit_code": handover.exit_code,
    }


def _after(handover: Handover, at: float | None) -> float | None:
    return None if at is None else round(at - handover.started_at, 4)
