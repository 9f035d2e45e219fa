"""What the demo saw, and what it claims of it. Pure: numbers in, judgements out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .demo_deployed import Deploy, deploy_as_json, deploy_claims
from .demo_measures import Act, Call, Claim, find_moved, least_share, longest_pause, percent, share

__all__ = ["LEAST_SHARE", "LEAVE_SLACK", "Findings", "as_json", "claims"]

LONGEST_PAUSE = 2.0
"""Seconds that a kind of caller may go without an answer. It is two attempts that time out while they connect."""
LEAVE_SLACK = 6.0
"""Seconds after the end of its lease until which a dead instance must have left: etcd looks twice a second, and a busy
machine takes its time."""
FIRST_REQUEST = 2.0
"""Seconds within which a newcomer must get its first request."""
LEAST_SHARE = 0.15
"""Of an equal share, what an instance must get at least. Balancing by latency is not meant to be equal."""
LEAST_AGEING = 0.8
"""Seconds by which knowledge must age in a second without a registry; the rest is for when one looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that was seen. ``acts`` are the seven, in order; times are of the monotonic clock, in seconds."""

    etcd: str
    calls: Sequence[Call]
    acts: Sequence[Act]
    ttl: float
    first: Sequence[int]
    """The numbers of the instances that were there from the start."""
    killed: int
    killed_at: float
    dead_at: float
    """When its process was gone, a moment after it was killed."""
    left_at: float | None
    """When the killed instance had left the registry."""
    old_leader: str
    new_leader: str
    elected_after: float
    newcomer: int
    joined_at: float
    """When the newcomer was registered."""
    deploy: Deploy
    gone_at: float
    """When the last member of etcd was gone."""
    ages: Sequence[tuple[float, float]]
    """When it was asked, and how old the knowledge was then; since there is no etcd."""


def claims(findings: Findings) -> list[Claim]:
    """What the demo claims, each with what was seen."""
    return [
        _nothing_failed(findings),
        _nobody_waited(findings),
        _everyone_served(findings),
        _the_dead_is_left_alone(findings),
        _the_dead_left(findings),
        _etcd_failed_over(findings),
        _the_newcomer_served(findings),
        *deploy_claims(findings.deploy, findings.calls, broken=findings.acts[4], act=findings.acts[5]),
        _life_without_etcd(findings),
    ]


def as_json(findings: Findings) -> dict[str, Any]:
    """The findings for a program. Times in seconds."""
    found = claims(findings)
    moved = find_moved(findings.acts[1].calls(findings.calls), findings.killed_at)
    newcomers = [call.ended for call in findings.calls if call.number == findings.newcomer]
    return {
        "held": all(claim.held for claim in found),
        "etcd": findings.etcd,
        "requests": len(findings.calls),
        "failed": sum(bool(call.error) for call in findings.calls),
        "moved_after": round(moved.after, 4),
        "left_registry_after": _rounded(findings.left_at, findings.killed_at),
        "leader_elected_after": round(findings.elected_after, 4),
        "newcomer_first_answer_after": _rounded(min(newcomers, default=None), findings.joined_at),
        "deploy": deploy_as_json(findings.deploy),
        "acts": [_act_as_json(act, act.calls(findings.calls)) for act in findings.acts],
        "claims": [{"claim": claim.text, "held": claim.held, "seen": claim.seen} for claim in found],
    }


# ---- the claims


def _nothing_failed(findings: Findings) -> Claim:
    gets = [call for call in findings.calls if call.post is None]
    errors = Counter(call.error for call in gets if call.error)
    seen = f"{len(gets):,} requests, {errors.total()} failed"
    if errors:
        seen += f" ({errors.most_common(1)[0][0]})"
    return Claim("No idempotent request (GET) failed", bool(gets) and not errors, seen)


def _nobody_waited(findings: Findings) -> Claim:
    began, ended = findings.acts[0].began, findings.acts[-1].ended
    pauses = {
        caller: longest_pause([call for call in findings.calls if call.caller == caller], began, ended)
        for caller in ("sync", "async")
    }
    seen = ", ".join(f"{pause * 1000:.0f} ms ({caller})" for caller, pause in pauses.items())
    return Claim(
        "Callers, sync and async, never waited long",
        max(pauses.values()) <= LONGEST_PAUSE,
        f"longest wait {seen}",
    )


def _everyone_served(findings: Findings) -> Claim:
    least = least_share(findings.acts[0].calls(findings.calls), findings.first)
    seen = f"the least busy one has {percent(least)} of a fair share"
    return Claim("Every instance got its share", least >= LEAST_SHARE, seen)


def _the_dead_is_left_alone(findings: Findings) -> Claim:
    later = [call for call in findings.calls if call.began >= findings.dead_at]
    from_it = sum(call.number == findings.killed for call in later)
    others = sum(call.number is not None for call in later) - from_it
    moved = find_moved(findings.acts[1].calls(findings.calls), findings.killed_at)
    seen = f"traffic moved in {moved.after * 1000:.0f} ms, then {from_it} answers from it"
    return Claim("The killed instance was left alone", from_it == 0 and others > 0, seen)


def _the_dead_left(findings: Findings) -> Claim:
    text = f"It left the registry with its lease ({findings.ttl:g} s)"
    if findings.left_at is None:
        return Claim(text, False, "it is still there")
    after = findings.left_at - findings.killed_at
    return Claim(text, after <= findings.ttl + LEAVE_SLACK, f"after {after:.1f} s")


def _etcd_failed_over(findings: Findings) -> Claim:
    calls = findings.acts[2].calls(findings.calls)
    alive = set(findings.first) - {findings.killed}
    answered = alive <= {call.number for call in calls}
    elected = findings.new_leader not in ("", findings.old_leader)
    seen = f"{findings.new_leader or 'nobody'} led after {findings.elected_after:.1f} s; {len(calls):,} requests in this act"
    return Claim("Losing etcd's leader disturbed nobody", elected and answered, seen)


def _the_newcomer_served(findings: Findings) -> Claim:
    text = "A new instance was found and got its share"
    calls = findings.acts[3].calls(findings.calls)
    first = min((call.ended for call in calls if call.number == findings.newcomer), default=None)
    if first is None:
        return Claim(text, False, "it got no request")
    got = share([call for call in calls if call.ended >= first], findings.newcomer, len(findings.first))
    after = first - findings.joined_at
    return Claim(
        text,
        after <= FIRST_REQUEST and got >= LEAST_SHARE,
        f"first answer after {max(0.0, after) * 1000:.0f} ms; {percent(got)} of a fair share",
    )


def _life_without_etcd(findings: Findings) -> Claim:
    text = "Requests went on without etcd; age was told"
    calls = [call for call in findings.calls if call.began >= findings.gone_at]
    answered = sum(call.number is not None for call in calls)
    if len(findings.ages) < 2:
        return Claim(text, False, "the age of knowledge is not known")
    (began, young), (ended, old) = findings.ages[0], findings.ages[-1]
    grew = old - young
    return Claim(
        text,
        answered > 0 and answered == len(calls) and grew >= LEAST_AGEING * (ended - began) > 0,
        f"{answered:,} answers in {ended - began:.1f} s; age {young:.1f} s -> {old:.1f} s",
    )


# ---- formats


def _act_as_json(act: Act, calls: Sequence[Call]) -> Mapping[str, Any]:
    latencies = [call.ended - call.began for call in calls if not call.error]
    counts = Counter(call.number for call in calls if call.number is not None)
    return {
        "title": act.title,
        "seconds": round(act.ended - act.began, 3),
        "requests": len(calls),
        "posts": sum(call.post is not None for call in calls),
        "failed": sum(bool(call.error) for call in calls),
        "retried": sum(call.attempts > 1 for call in calls),
        "answers": {str(number): counts[number] for number in sorted(counts)},
        "latency_median": round(median(latencies), 5) if latencies else None,
        "latency_max": round(max(latencies), 5) if latencies else None,
    }


def _rounded(at: float | None, since: float) -> float | None:
    return None if at is None else round(at - since, 4)
