"""What an attempt teaches: about its endpoint, and about how far the detector is to be trusted."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..balancing.accrual import Verdict
from ..balancing.endpoint import Endpoint
from ..model.events import EjectionSkipped, Event, InstanceEjected, InstanceUnejected
from ..model.outcome import UNAVAILABLE, Outcome, OutcomeKind
from .ledger import CAPPED, Ledger
from .steps import Send

__all__ = ["learn"]


def learn(
    send: Send, outcome: Outcome, ledger: Ledger, now: float, rng: Random, emit: Callable[[Event], None]
) -> None:
    """Once for each attempt that came to an end by itself."""
    kind = outcome.kind
    if kind is OutcomeKind.LOCAL or kind is OutcomeKind.STALE:  # which say nothing about the endpoint
        return
    ticket = send.ticket
    endpoint = ticket.endpoint
    if outcome.status >= 500 and outcome.status not in UNAVAILABLE:
        endpoint.note_server_error()
    is_good = kind is OutcomeKind.RESPONSE and outcome.status not in UNAVAILABLE
    if is_good and not ticket.is_probe and not ledger.is_curious:  # nearly always
        window = ledger.policies.outlier.success_window
        endpoint.learn_success(ticket, outcome.latency, now, is_warm=outcome.is_warm, window=window)
        return

    peers = send.view.endpoints.values()
    verdict = endpoint.learn(
        ticket,
        outcome,
        now,
        ledger.policies.outlier,
        lambda endpoint: ledger.reserve(endpoint, peers, now),
        rng,
    )
    if verdict is not None and verdict.is_ejected:
        ledger.release(endpoint)
    if verdict is not None:
        _tell(verdict, endpoint, ledger, emit)
    if verdict is not None or ledger.is_panic:
        is_capped = verdict is not None and verdict.because == CAPPED
        change = ledger.panic(peers, now, is_capped=is_capped)
        if change is not None:
            emit(change)
    if kind is OutcomeKind.RESPONSE:
        if ledger.is_guarded and outcome.status not in (429, 503):
            ledger.took(now)
        if ledger.latencies is not None:
            ledger.latencies.record(outcome.latency, now)
    elif endpoint.is_held and (kind is OutcomeKind.NOT_SENT or kind is OutcomeKind.MISDIRECTED):
        endpoint.retire()  # it vanished from the registry, and really is gone


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
