"""What can go wrong, and whose question the answer belongs to.

::

    DiscoError
    ├── ConfigError(ValueError)                      the program or its environment is wrong
    ├── RegistryError                                the registry could not do what was asked
    │   ├── RegistryUnavailable                      no member answered in time; try again
    │   ├── RegistryDenied                           wrong password, or a role that does not allow it
    │   ├── RevisionCompacted                        the history asked for is gone; list again
    │   └── LeaseExpired                             the lease is gone; register again
    └── RoutingError(httpx.TransportError)           a request could not be routed
        ├── NoInstances                              the service is known, and nothing there can be called
        ├── DiscoveryTimeout(httpx.TimeoutException) nothing is known of the service yet
        ├── Throttled                                refused here, because the service refuses most of late
        └── DeadlineExceeded(httpx.ReadTimeout)      the call's deadline passed

The routing half also derives from httpx's tree, so that ``except httpx.HTTPError`` goes on working and httpx fills in
``.request``. An error of the wire itself (a refused connection, a read timeout) stays httpx's own: callers know it.
"""

from __future__ import annotations

import httpx

__all__ = [
    "ConfigError",
    "DeadlineExceeded",
    "DiscoError",
    "DiscoveryTimeout",
    "LeaseExpired",
    "NoInstances",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnavailable",
    "RevisionCompacted",
    "RoutingError",
    "Throttled",
]


class DiscoError(Exception):
    """The root of every error that discoclient raises itself."""


class ConfigError(DiscoError, ValueError):
    """An argument, an option or an environment variable is wrong. The message names the valid choices."""


class RegistryError(DiscoError):
    """The registry could not do what was asked."""


class RegistryUnavailable(RegistryError):
    """No member of the registry answered in time. Asking again later may help."""


class RegistryDenied(RegistryError):
    """The registry refused the user, the password or the permission."""


class RevisionCompacted(RegistryError):
    """The registry no longer has the history from the asked revision on: list again.

    ``oldest``: after which revision there is one; 0 if it did not say.
    """

    def __init__(self, text: str, *, oldest: int = 0) -> None:
        super().__init__(text)
        self.oldest = oldest


class LeaseExpired(RegistryError):
    """The lease is gone, and with it every key that it held."""


class RoutingError(DiscoError, httpx.TransportError):
    """A request could not be routed to an instance."""


class NoInstances(RoutingError):
    """The service is known, and it has no instance that this call may go to."""


class DiscoveryTimeout(RoutingError, httpx.TimeoutException):
    """Nothing is known of the service yet, and ``discovery_timeout`` seconds have passed, or the registry
    refuses us (a password, a certificate).

    Unknown is not empty: a service that is known to have no instances gives `NoInstances`.
    """


class Throttled(RoutingError):
    """The request was refused here and not sent: `ThrottlePolicy` or `RecoveryPolicy`, which a client has only if it asks for
    it.
    """


class DeadlineExceeded(RoutingError, httpx.ReadTimeout):
    """The deadline of the call passed, over all its attempts and the body."""
