"""Is this request meant for us? The decision that the ASGI and the WSGI middleware share. It is told, and answers.

A port outlives the process that had it: a caller whose knowledge is old may reach whoever listens there now. So it says
whom it means, and whoever knows itself to be somebody else refuses before anything has happened. Who does not know
itself refuses nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ..model.errors import ConfigError
from ..model.instance import ID_PATTERN, SERVICE_PATTERN, State, check_service
from .load import Load

__all__ = [
    "EXPECT_HEADER",
    "INSTANCE_HEADER",
    "MISDIRECTED",
    "Identities",
    "Identity",
    "Named",
    "Registered",
    "Source",
    "Verdict",
    "judge",
]

EXPECT_HEADER = "X-Disco-Expect"
"""``<service>/<instance id>``: whom the caller means."""
INSTANCE_HEADER = "X-Disco-Instance"
"""The id of who answers. It never stands on a 421 of the application's own: with it, a caller takes the request for not
executed, and sends it elsewhere whatever its method."""
MISDIRECTED = 421
"""Misdirected Request (RFC 9110, 15.5.20): a client may send the request again, over another connection."""


class Named(Protocol):
    """What has the name of an instance: an `Instance`, or an `Identity`."""

    @property
    def service(self) -> str: ...
    @property
    def id(self) -> str: ...


class Registered(Protocol):
    """What knows its instance: what `discoclient.register` returns, and its async twin.

    A `RuntimeError`, or None, instead of the instance means that it is not known yet.
    """

    @property
    def instance(self) -> Named | None: ...


Found: TypeAlias = Registered | Sequence[Registered | None] | None
Source: TypeAlias = Registered | Callable[[], Found] | Sequence[Registered | Callable[[], Found]]
"""What tells who this process is: a registration, a function that finds it (None: not yet), or a list of these."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The name of one instance."""

    service: str
    id: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request.

    ``instance`` is the id for `INSTANCE_HEADER` of the response; ``None``: leave request and response alone. ``refusal`` is
    the text of the 421 to answer with; ``None``: the application's turn.
    """

    instance: str | None = None
    refusal: str | None = None
    is_leaving: bool = False
    """Whether it drains, and connections should not be kept any longer."""


UNKNOWN = Verdict()


def judge(identities: Iterable[Named | None], expected: str | None) -> Verdict:
    """What becomes of a request with *expected* as its `EXPECT_HEADER`, at a process that is all of *identities*.

    A ``None`` among them is one that this process will be, by a name it does not know yet. It may be the one that is meant,
    so nothing is refused until all are known. What is no ``<service>/<instance id>`` expects nobody.
    """
    who = list(identities)
    known = [each for each in who if each is not None]
    if not known:
        return UNKNOWN
    service, _, id = (expected or "").strip(" \t").partition("/")
    # As a whole: a connection is to a process, not to one of its names.
    is_leaving = all(getattr(each, "state", None) is State.DRAINING for each in known)
    if not SERVICE_PATTERN.fullmatch(service) or not ID_PATTERN.fullmatch(id):
        return Verdict(known[0].id, is_leaving=is_leaving)
    for each in known:
        if each.id == id and each.service == service:
            return Verdict(id, is_leaving=is_leaving)
    if len(known) < len(who):
        return UNKNOWN
    names = ", ".join(f"{each.service}/{each.id}" for each in known)
    return Verdict(known[0].id, f"This request was meant for {service}/{id}; this is {names}.\n")


class Identities:
    """Who this process is, from the options of a middleware; asked anew for each request, as that may change.

    Args:
        registration: what `discoclient.register` or `aregister` returned, or a function that returns it, and None while
            there is none; or a list of these, for a process that serves several services. The list may grow.
        service, instance: the name and the instance's id, where neither is ours to know.
        environ: asked for ``DISCO_SERVICE`` and ``DISCO_INSTANCE``, at once, when no option is given. They are set before a
            process begins, and forked workers inherit them with the socket: later is not better, and a mistake shows at start.

    Raises:
        ConfigError: half a pair, both forms at once, no valid name, or nothing that has an instance.
    """

    def __init__(
        self,
        *,
        registration: Source | None = None,
        service: str | None = None,
        instance: str | None = None,
        environ: Mapping[str, str],
    ) -> None:
        self.load = Load()
        """The requests that are in flight here: a middleware counts them, and a registration asks."""
        self._source: Source | None = registration
        self._fixed: Sequence[Named] = ()
        if registration is not None:
            if service is not None or instance is not None:
                raise ConfigError("registration= says who this is already: leave out service= and instance=")
            _check(registration)
        elif service is not None or instance is not None:
            self._fixed = (_pair(service, instance, "service=", "instance="),)
        else:
            named = environ.get("DISCO_SERVICE") or None, environ.get("DISCO_INSTANCE") or None
            if named != (None, None):
                self._fixed = (_pair(*named, "$DISCO_SERVICE", "$DISCO_INSTANCE"),)

    def judge(self, expected: str | None) -> Verdict:
        """`judge`, with who this process is now. Raises what a function given as ``registration`` raises."""
        return judge(self._fixed if self._source is None else _ask(self._source, self.load), expected)


def _ask(source: object, load: Load) -> Iterator[Named | None]:
    """The names behind *source*; ``None`` for each that is not known yet. Raises `ConfigError` for what can have none.

    A registration of ours is told of *load* on the way, as it may have been made after the middleware.
    """
    if source is None:
        yield None
    elif (found := _instance_of(source)) is not _NOTHING:
        if found is not None and (attach := getattr(source, "attach", None)) is not None:
            attach(load)
        yield found  # type: ignore[misc]  # it is what `Registered` says
    elif isinstance(source, Sequence) and not isinstance(source, str | bytes):
        for each in source:
            yield from _ask(each, load)
    elif callable(source):
        yield from _ask(source(), load)
    else:
        raise _no_source(source)


def _check(source: object) -> None:
    """Raise `ConfigError` if *source* can't ever name anybody. Functions are not called: it is too early for them."""
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        for each in source:
            _check(each)
    elif _instance_of(source) is _NOTHING and not callable(source):
        raise _no_source(source)


_NOTHING = object()


def _instance_of(source: object) -> object:
    try:
        return getattr(source, "instance", _NOTHING)
    except RuntimeError:  # an async registration that has not begun
        return None


def _no_source(source: object) -> ConfigError:
    return ConfigError(
        "registration= takes what discoclient.register() or aregister() returned, a function that returns it, or a "
        f"list of these; got {type(source).__name__}. To name an instance directly, pass service= and instance="
    )


def _pair(service: str | None, instance: str | None, *names: str) -> Identity:
    if service is None or instance is None:
        given, missing = names if instance is None else reversed(names)
        raise ConfigError(f"{given} is given without {missing}: set both, or neither")
    check_service(service)
    if not isinstance(instance, str) or not ID_PATTERN.fullmatch(instance):
        raise ConfigError(f"{names[1]} must be 8 to 64 of a-z, 0-9 and '-'; got {instance!r}")
    return Identity(service, instance)
