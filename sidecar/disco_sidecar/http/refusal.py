"""A request that is not passed on, and why."""

from __future__ import annotations

from http import HTTPStatus

__all__ = ["Refused"]


class Refused(Exception):
    """``status`` for the client; ``reason``: one word for programs, metrics and ``X-Disco-Error``; the text is for people.

    ``is_final``: where the next request would begin can't be known, so that the connection ends with the answer.
    """

    def __init__(
        self, status: int, reason: str, text: str, *, is_final: bool = False, retry_after: int | None = None
    ) -> None:
        super().__init__(text)
        self.status = HTTPStatus(status)
        self.reason = reason
        self.text = text
        self.is_final = is_final
        self.retry_after = retry_after

    @classmethod
    def bad(cls, text: str) -> Refused:
        """For what can be read in two ways, or in none."""
        return cls(400, "bad_request", text, is_final=True)
