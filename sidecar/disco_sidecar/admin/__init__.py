"""The admin address: what the sidecar knows and does, to look at. Read-only, and not in the way of a request."""

from .happenings import Happenings
from .limits import Limits
from .merging import merge
from .server import AdminServer
from .state import Observer

__all__ = ["AdminServer", "Happenings", "Limits", "Observer", "merge"]
