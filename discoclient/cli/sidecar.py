"""``disco sidecar``: the sidecar's own command, under a name that is at hand."""

from __future__ import annotations

from typing import Annotated

import typer

from .errors import USAGE, Failure
from .session import Session

__all__ = ["SETTINGS", "sidecar"]

SETTINGS = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],  # it knows its options best
}


def sidecar(
    ctx: typer.Context,
    options: Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS]", show_default=False)] = None,
) -> int:
    """An address on this machine for clients that can't use the SDK. Takes the options of disco-sidecar."""
    try:
        from disco_sidecar.cli import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("disco_sidecar", "uvloop", "httptools"):
            raise
        raise Failure("the sidecar is not installed: pip install 'discoclient[sidecar]'", USAGE) from error
    session: Session = ctx.obj
    said = [*(options or ()), *ctx.args]
    if session.registry is not None:
        said = ["--registry", session.registry, *said]
    return main(said, prog="disco sidecar")
