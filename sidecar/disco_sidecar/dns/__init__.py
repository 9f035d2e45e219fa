"""The sidecar's optional DNS: what is behind `<service>.disco.`? Imported only when it is asked for.

`names` reads a name, `queries` reads a packet, `answers` decides, `packets` writes; these are pure. `server` is their shell.
"""

from __future__ import annotations

from .answers import reply
from .limits import Limits
from .server import Capacity, DnsServer, Lookup

__all__ = ["Capacity", "DnsServer", "Limits", "Lookup", "reply"]
