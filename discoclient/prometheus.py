"""Metrics for Prometheus. The extra: ``pip install 'discoclient[prometheus]'``.

::

    DiscoClient("experiment", hooks=[PrometheusHook()])

Nothing is served here: the metrics are in a registry of prometheus_client, which the application exposes as it does its own.
One hook may be given to many clients. Their names begin with the namespace, ``disco`` by default:

===================================  =================  ============================================================
metric                               labels             what
===================================  =================  ============================================================
``disco_calls_total``                service, result    calls: ``2xx`` to ``5xx``, or the exception's class
``disco_call_duration_seconds``      service            time to the response, with its body unless it is
                                                       streamed, or to the exception
``disco_attempts_total``             service, outcome   attempts: ``2xx`` to ``5xx``, else what went wrong
``disco_hedges_total``               service            attempts made while another one of the call was out
``disco_retries_total``              service, reason    attempts after which another one followed
``disco_budget_exhausted_total``     service, reason    attempts after which none followed, for want of budget
``disco_throttled_total``            service, policy    calls refused here
``disco_ejections_total``            service, reason    instances ejected
``disco_ejections_skipped_total``    service, because   instances due for ejection that were spared
``disco_unejections_total``          service            instances that came back by a good probe
``disco_panic``                      service            1 while ejections are distrusted and disregarded, else 0
``disco_snapshot_instances``         service            instances known, in every state
``disco_snapshot_revision``          service            the registry's revision of that
``disco_phase``                      service, phase     1 for the phase that the knowledge is in, 0 for the others
===================================  =================  ============================================================

What can go wrong with an attempt is an `OutcomeKind`, or ``cancelled``: its call ended without waiting for it, as for the loser
of a hedge. The names follow https://prometheus.io/docs/practices/naming/. In prometheus_client's multiprocess mode a gauge has
one value for all live processes: the highest, but of ``disco_snapshot_instances`` the youngest.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from .model.errors import ConfigError
from .model.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetExhausted,
    CallEnded,
    CallInfo,
    CallStarted,
    EjectionSkipped,
    Event,
    InstanceEjected,
    InstanceUnejected,
    PanicChanged,
    PhaseChanged,
    RequestThrottled,
    SnapshotChanged,
)
from .model.instance import Instance
from .model.outcome import OutcomeKind

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError as missing:
    raise ImportError(
        "discoclient.prometheus needs prometheus-client: pip install 'discoclient[prometheus]'",
        name="prometheus_client",
    ) from missing

__all__ = ["BUCKETS", "PrometheusHook"]

BUCKETS = (0.001, 0.0025, *Histogram.DEFAULT_BUCKETS)
"""Seconds. The client library's (0.005 to 10), which OpenTelemetry advises for ``http.client.request.duration`` too, and two
finer ones, because a call within a machine or a rack takes less than their first."""

MAX_SERVICES = 1000
"""Services with a label of their own; those after them share ``_other``. Where users name the service, they could name any."""

MAX_INSTANCES = 1000
"""Instances with a label of their own, with ``per_instance``. When there are more, the series of those idle for longest go."""

MAX_OPEN = 65_536
"""Calls that may be open at once, far more than there are: beyond it the oldest, whose end never came, is forgotten."""

PHASES = ("empty", "syncing", "live", "suspect")


class PrometheusHook:
    """Counts what the events tell. Hooks with the same registry and namespace share their metrics, and so count together.

    Args:
        registry: where the metrics are registered. Default: ``prometheus_client.REGISTRY``.
        namespace: what their names begin with. Default ``disco``.
        buckets: upper bounds in seconds of ``disco_call_duration_seconds``, ascending. Default `BUCKETS`.
        per_instance: whether attempts and ejections have the label ``instance_id`` too. Default ``False``: an id is new with
            each start of an instance, so that every deploy adds series (here those of at most `MAX_INSTANCES` instances).

    Raises `ConfigError` if the names are taken in *registry* by something else, or by a hook with other *buckets* or
    *per_instance*; and for a namespace or buckets that make no sense.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        namespace: str = "disco",
        buckets: Iterable[float] = BUCKETS,
        per_instance: bool = False,
    ) -> None:
        self._metrics = _metrics(REGISTRY if registry is None else registry, namespace, buckets, per_instance)
        self._open: dict[CallInfo, dict[int, Instance]] = {}

    def on_event(self, event: Event) -> None:
        handle = self._HANDLERS.get(type(event))
        if handle is not None:  # a later version may tell of more
            handle(self, event)

    def _call_started(self, event: CallStarted) -> None:
        self._open[event.call] = {}
        if len(self._open) > MAX_OPEN:
            try:
                self._open.pop(next(iter(self._open)), None)
            except (StopIteration, RuntimeError):  # another thread was faster
                pass

    def _attempt_started(self, event: AttemptStarted) -> None:
        attempts = self._open.get(event.call)
        if attempts is not None:
            attempts[event.number] = event.instance
        if event.is_hedge:
            self._metrics.hedges.labels(self._metrics.service(event.call.service)).inc()

    def _attempt_ended(self, event: AttemptEnded) -> None:
        attempts = self._open.get(event.call)
        if attempts is None or attempts.pop(event.number, None) is None:
            return  # counted before
        outcome, service = event.outcome, event.call.service
        is_response = outcome.kind is OutcomeKind.RESPONSE
        self._metrics.attempt(
            service, _status_class(outcome.status) if is_response else outcome.kind.value, event.instance
        )
        if event.retry is not None:
            self._metrics.retries.labels(self._metrics.service(service), event.retry).inc()

    def _call_ended(self, event: CallEnded) -> None:
        for instance in self._open.pop(event.call, {}).values():
            self._metrics.attempt(event.call.service, "cancelled", instance)
        service = self._metrics.service(event.call.service)
        result = event.error or _status_class(event.status or 0)
        self._metrics.calls.labels(service, result).inc()
        self._metrics.duration.labels(service).observe(event.seconds)

    def _ejected(self, event: InstanceEjected) -> None:
        self._metrics.ejection(event.service, event.reason, event.instance)

    def _ejection_skipped(self, event: EjectionSkipped) -> None:
        self._metrics.skipped.labels(self._metrics.service(event.service), event.because).inc()

    def _unejected(self, event: InstanceUnejected) -> None:
        self._metrics.unejections.labels(self._metrics.service(event.service)).inc()

    def _panic(self, event: PanicChanged) -> None:
        self._metrics.panic.labels(self._metrics.service(event.service)).set(event.is_panic)

    def _budget(self, event: BudgetExhausted) -> None:
        self._metrics.budget.labels(self._metrics.service(event.service), event.reason).inc()

    def _throttled(self, event: RequestThrottled) -> None:
        self._metrics.throttled.labels(self._metrics.service(event.service), event.policy).inc()

    def _snapshot(self, event: SnapshotChanged) -> None:
        service = self._metrics.service(event.service)
        self._metrics.instances.labels(service).set(event.total)
        self._metrics.revision.labels(service).set(event.revision)

    def _phase(self, event: PhaseChanged) -> None:
        service = self._metrics.service(event.service)
        for phase in PHASES:
            self._metrics.phase.labels(service, phase).set(phase == event.phase)

    _HANDLERS: ClassVar[Mapping[type, Callable[[PrometheusHook, Any], None]]] = MappingProxyType(
        {
            CallStarted: _call_started,
            AttemptStarted: _attempt_started,
            AttemptEnded: _attempt_ended,
            CallEnded: _call_ended,
            InstanceEjected: _ejected,
            EjectionSkipped: _ejection_skipped,
            InstanceUnejected: _unejected,
            PanicChanged: _panic,
            BudgetExhausted: _budget,
            RequestThrottled: _throttled,
            SnapshotChanged: _snapshot,
            PhaseChanged: _phase,
        }
    )


def _status_class(status: int) -> str:
    return f"{status // 100}xx" if status else "unknown"


class _Metrics:
    """The metrics of one namespace in one registry. All hooks there share them: prometheus_client has each name only once."""

    def __init__(self, namespace: str, buckets: tuple[float, ...], per_instance: bool) -> None:
        self.options = (buckets, per_instance)
        self._per_instance = per_instance
        self._services: set[str] = set()
        self._series: dict[str, set[tuple[Counter, tuple[str, ...]]]] = {}  # by instance id
        self._lock = threading.Lock()
        who = ("instance_id",) if per_instance else ()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ("service", *labels), namespace=namespace, registry=None)

        def gauge(name: str, text: str, *labels: str, newest: bool = False) -> Gauge:
            return Gauge(
                name,
                text,
                ("service", *labels),
                namespace=namespace,
                registry=None,
                multiprocess_mode="livemostrecent" if newest else "livemax",
            )

        self.calls = counter("calls_total", "Calls, by status class or class of the exception.", "result")
        self.duration = Histogram(
            "call_duration_seconds",
            "Time to the response (with its body unless it is streamed) or the exception, over all attempts.",
            ("service",),
            namespace=namespace,
            registry=None,
            buckets=buckets,
        )
        self._attempts = counter(
            "attempts_total", "Attempts, by status class or what went wrong.", "outcome", *who
        )
        self.hedges = counter("hedges_total", "Attempts made while another of the call was still out.")
        self.retries = counter("retries_total", "Attempts after which another one followed.", "reason")
        self.budget = counter(
            "budget_exhausted_total", "Attempts after which none followed, for want of budget.", "reason"
        )
        self.throttled = counter("throttled_total", "Calls refused without being sent.", "policy")
        self._ejections = counter(
            "ejections_total", "Instances ejected, to be left alone for a while.", "reason", *who
        )
        self.skipped = counter("ejections_skipped_total", "Ejections that were not enforced.", "because")
        self.unejections = counter("unejections_total", "Ejected instances that came back by a good probe.")
        self.panic = gauge("panic", "1 while so many are ejected that ejection is disregarded.")
        self.instances = gauge("snapshot_instances", "Instances known, in every state.", newest=True)
        self.revision = gauge("snapshot_revision", "The registry's revision of what is known.")
        self.phase = gauge("phase", "1 for the phase that the knowledge is in.", "phase")

    def register(self, registry: CollectorRegistry) -> None:
        """All of them, or none."""
        done: list[Counter | Gauge | Histogram] = []
        try:
            for each in vars(self).values():
                if isinstance(each, Counter | Gauge | Histogram):
                    registry.register(each)
                    done.append(each)
        except ValueError:
            for each in done:
                registry.unregister(each)
            raise

    def service(self, service: str) -> str:
        """The label of *service*."""
        if service not in self._services:
            if len(self._services) >= MAX_SERVICES:
                return "_other"  # no valid service is called so
            self._services.add(service)
        return service

    def attempt(self, service: str, outcome: str, instance: Instance) -> None:
        self._count(self._attempts, (self.service(service), outcome), instance)

    def ejection(self, service: str, reason: str, instance: Instance) -> None:
        self._count(self._ejections, (self.service(service), reason), instance)

    def _count(self, counter: Counter, labels: tuple[str, ...], instance: Instance) -> None:
        if not self._per_instance:
            counter.labels(*labels).inc()
            return
        labels = (*labels, instance.id)
        with self._lock:
            counter.labels(*labels).inc()
            series = self._series.pop(instance.id, set())
            series.add((counter, labels))
            self._series[instance.id] = series  # the last now
            if len(self._series) > MAX_INSTANCES:
                for old, gone in self._series.pop(next(iter(self._series))):
                    old.remove(*gone)


_made: WeakKeyDictionary[CollectorRegistry, dict[str, _Metrics]] = WeakKeyDictionary()
_making = threading.Lock()


def _metrics(
    registry: CollectorRegistry, namespace: str, buckets: Iterable[float], per_instance: bool
) -> _Metrics:
    """Those that a hook has made in *registry* before, else new ones."""
    if not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", namespace):
        raise ConfigError(f"namespace {namespace!r} can't begin a metric's name: letters, digits and '_'")
    try:
        options = (tuple(float(bound) for bound in buckets), per_instance)
        with _making:
            known = _made.setdefault(registry, {})
            metrics = known.get(namespace)
            if metrics is None:
                metrics = _Metrics(namespace, *options)
                metrics.register(registry)
                known[namespace] = metrics
    except (TypeError, ValueError) as error:
        what = f"PrometheusHook(namespace={namespace!r}, buckets={buckets!r})"
        raise ConfigError(f"{what}: {error}") from error
    if metrics.options != options:
        raise ConfigError(
            f"this registry has the metrics of namespace {namespace!r} with other buckets or another per_instance:"
            " give both hooks the same, or one of them a namespace or registry of its own"
        )
    return metrics
