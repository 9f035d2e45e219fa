"""What an attempt teaches: about its endpoint, and about how far the detector is to be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from ..balancing.accrual import Verdict
from ..balancing.endpoint import Endpoint
from ..model.events import EjectionSkipped, Event, InstanceEjected, InstanceUnejected
from ..model.outcome import UNAVAILABLE, Outcome, OutcomeKind
from ..model.policy import OutlierPolicy
from .ledger import Ledger, may_eject_more
from .steps import Send

__all__ = ["learn"]

CAPPED = "max_ejected"


def learn(
    send: Send, outcome: Outcome, ledger: Ledger, now: float, rng: Random, emit: Callable[[Event], None]
) -> None:
    """Once for each attempt that came to an end by itself."""
    kind = outcome.kind
    if kind is OutcomeKind.LOCAL or kind is OutcomeKind.STALE:  # which say nothing about the endpoint
        return
    ticket = send.ticket
    endpoint = ticket.endpoint
    is_good = kind is OutcomeKind.RESPONSE and outcome.status not in UNAVAILABLE
    if is_good and not ticket.is_probe and not ledger.is_curious:  # nearly always
        window = ledger.policies.outlier.success_window
        endpoint.learn_success(ticket, outcome.latency, now, is_warm=outcome.is_warm, window=window)
        return

    def veto(endpoint: Endpoint) -> str | None:
        return _veto(endpoint, send.view.endpoints.values(), ledger.policies.outlier, now)

    verdict = endpoint.learn(send.ticket, outcome, now, ledger.policies.outlier, veto, rng)
    if verdict is not None:
        _tell(verdict, endpoint, ledger, emit)
    if verdict is not None or ledger.is_panic:
        is_capped = verdict is not None and verdict.because == CAPPED
        change = ledger.panic(send.view.endpoints.values(), now, is_capped=is_capped)
        if change is not None:
            emit(change)
    if kind is OutcomeKind.RESPONSE:
        if ledger.is_guarded and outcome.status not in (429, 503):
            ledger.took(now)
        if ledger.latencies is not None:
            ledger.latencies.record(outcome.latency, now)
    elif endpoint.is_held and (kind is OutcomeKind.NOT_SENT or kind is OutcomeKind.MISDIRECTED):
        endpoint.retire()  # it vanished from the registry, and really is gone


def _veto(endpoint: Endpoint, peers: Iterable[Endpoint], policy: OutlierPolicy, now: float) -> str | None:
    """Why *endpoint* must not be ejected."""
    if policy.max_ejected <= 0:
        return "off"
    able = [peer for peer in peers if not peer.is_retired]
    if len(able) <= 1:
        return "alone"
    out = sum(peer.is_ejected(now) for peer in able if peer is not endpoint)
    return None if may_eject_more(out, len(able), policy) else CAPPED


def _tell(verdict: Verdict, endpoint: Endpoint, ledger: Ledger, emit: Callable[[Event], None]) -> None:
    service, instance = ledger.service, endpoint.instance
    if verdict.because is not None:
        ledger.count(f"ejections_skipped.{verdict.because}")
        emit(EjectionSkipped(service, instance, verdict.reason, verdict.because))
    elif verdict.is_ejected:
        ledger.count(f"ejections.{verdict.reason}")
        emit(InstanceEjected(service, instance, verdict.reason, verdict.seconds))
    else:
        ledger.count("unejections")
        emit(InstanceUnejected(service, instance))
