"""Client-side service discovery over etcd.

Services register themselves under a lease (`register`); callers write ``DiscoClient("experiment").get("/users/1")``.
"""

import logging

from .balancing.balancer import Balancer
from .balancing.endpoint import Endpoint
from .balancing.explanation import Candidate, Explanation
from .balancing.picker import Picker
from .client import AsyncDiscoClient, DiscoClient
from .control.handle import RegistryHandle, connect
from .model.errors import (
    ConfigError,
    DeadlineExceeded,
    DiscoError,
    DiscoveryTimeout,
    LeaseExpired,
    NoInstances,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
    RevisionCompacted,
    RoutingError,
    Throttled,
)
from .model.events import Event, Hook
from .model.instance import Instance, State
from .model.policy import (
    HedgePolicy,
    OutlierPolicy,
    RecoveryPolicy,
    RetryPolicy,
    SlowStartPolicy,
    ThrottlePolicy,
)
from .model.snapshot import Snapshot
from .registry.asked import Retirement
from .serving.async_registration import AsyncRegistration, aregister
from .serving.drain import Drained
from .serving.registration import Registration, register
from .transport.async_transport import AsyncDiscoTransport
from .transport.options import DiscoOptions, Routed
from .transport.sync_transport import DiscoTransport

__version__ = "0.1.0"

# Quiet, unless the application sets logging up.
logging.getLogger("discoclient").addHandler(logging.NullHandler())

__all__ = [
    "AsyncDiscoClient",
    "AsyncDiscoTransport",
    "AsyncRegistration",
    "Balancer",
    "Candidate",
    "ConfigError",
    "DeadlineExceeded",
    "DiscoClient",
    "DiscoError",
    "DiscoOptions",
    "DiscoTransport",
    "DiscoveryTimeout",
    "Drained",
    "Endpoint",
    "Event",
    "Explanation",
    "HedgePolicy",
    "Hook",
    "Instance",
    "LeaseExpired",
    "NoInstances",
    "OutlierPolicy",
    "Picker",
    "RecoveryPolicy",
    "Registration",
    "RegistryDenied",
    "RegistryError",
    "RegistryHandle",
    "RegistryUnavailable",
    "Retirement",
    "RetryPolicy",
    "RevisionCompacted",
    "Routed",
    "RoutingError",
    "SlowStartPolicy",
    "Snapshot",
    "State",
    "ThrottlePolicy",
    "Throttled",
    "aregister",
    "connect",
    "register",
]
