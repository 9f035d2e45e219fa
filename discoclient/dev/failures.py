"""What can go wrong with an etcd that we run ourselves."""

from __future__ import annotations

__all__ = ["EtcdFailed", "EtcdRefused", "ForeignListener"]


class EtcdFailed(RuntimeError):
    """An etcd that we started did not come up, died, or did not answer in time.

    The message ends with the tail of its log.
    """


class EtcdRefused(EtcdFailed):
    """etcd answered, and the answer is an error. ``code`` is gRPC's: 3 invalid argument, 14 unavailable..."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class ForeignListener(EtcdFailed):
    """Somebody else listens on a port that our member was to have. ``owner`` is the pid, if it is known.

    It is raised before anything is sent there: an etcd of somebody else must not be taken for ours, and then
    wiped.
    """

    def __init__(self, message: str, *, port: int, owner: int | None = None) -> None:
        super().__init__(message)
        self.port = port
        self.owner = owner
