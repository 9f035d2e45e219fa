"""The commands of ``disco``, put together; and the one place where an exception becomes a line and an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from .. import __version__
from .deploys import deploys
from .dev import dev
from .doctor import doctor
from .drain import drain, weight
from .errors import FAILED, USAGE, explain
from .explain import explain as explain_service
from .get import get
from .ls import ls
from .output import OutputClosed, OutputMissing, emit, remark
from .register import register
from .render import render
from .run import run as run_service
from .session import Session, set_up_logging
from .sidecar import SETTINGS as SIDECAR_SETTINGS
from .sidecar import sidecar
from .watch import watch

__all__ = ["run"]

app = typer.Typer(
    name="disco",
    rich_markup_mode=None,  # help is read in pipes and logs as well: plain text, no boxes
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
UsageError: Any = typer.BadParameter.__mro__[
    1
]  # click's, or that of the click which newer typers bring along


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            metavar="URL",
            help="The registry. Default: $DISCO_REGISTRY, else etcd://127.0.0.1:2379.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Service discovery on etcd: look at services, call them, register them.

    \b
    The registry's URL:
      etcd://[user:password@]host:port[,host:port...][/prefix]     etcds:// with TLS
      static://experiment=127.0.0.1:8000,127.0.0.1:8001            fixed addresses, without etcd

    \b
    Examples:
      disco dev                                   a real etcd on this machine
      disco register experiment --port 8000       register something that runs there
      disco ls                                    what is registered
      disco get experiment /                      call it

    \b
    Exit codes:
      0  done
      1  failed: a request failed, or something was not found
      2  wrong usage
      3  the service did not become ready
      4  the registry could not be reached

    $DISCO_LOG (debug, info, warning, error, critical; default error) has discoclient's log on standard error. $NO_COLOR
    turns colours off.
    """
    if version:
        emit(f"disco {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)
    set_up_logging()
    ctx.obj = Session(registry)


def demo(
    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object at the end; the story goes to standard error."),
    ] = False,
) -> int:
    """A real etcd cluster, real services and callers, and what they survive.

    Starts everything it needs on free ports, kills some of it, prints what happened, and ends by itself; nothing is left
    behind.

    \b
    Exit codes:
      0  all it claims was observed
      1  something was not
      2  there is no etcd to start
      130, 143  ended by Ctrl-C, by SIGTERM
    """
    from .demo import run_demo

    return run_demo(as_json=json)


for command, summary, *settings in (
    (dev, "A real etcd cluster on this machine, for development."),
    (demo, "Real services and callers on a real etcd, and what they survive."),
    (ls, "The services, or the instances of one."),
    (watch, "Changes as they happen."),
    (get, "One request to a live instance."),
    (explain_service, "Who would be called, and why."),
    (run_service, "Start a service, register it when it is ready, drain and stop it."),
    (register, "Register something that already runs, with health checks."),
    (drain, "Ask an instance to retire."),
    (weight, "Change an instance's share of the requests."),
    (deploys, "What was deployed when."),
    (render, "Files from the registry (nginx, HAProxy), checked, then reloaded."),
    (sidecar, "An address on this machine for what can't use the SDK.", SIDECAR_SETTINGS),
    (doctor, "What is configured, what is reachable, and what is wrong."),
):
    app.command(command.__name__, short_help=summary, context_settings=next(iter(settings), None))(command)


def run(argv: Sequence[str]) -> int:
    """Run the command in *argv*; errors become one line on standard error and an exit code."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a host's name must not end us in a C locale
    try:
        code = get_command(app).main(list(argv), prog_name="disco", standalone_mode=False)
    except OutputMissing as error:
        remark(str(error))
        return FAILED
    except OutputClosed:
        return 0
    except typer.Abort:
        return 130
    except UsageError as error:
        remark(_usage(error))
        return USAGE
    except Exception as error:  # a bug of ours, too, is one line for the user
        logging.getLogger("discoclient.cli").debug("failed", exc_info=True)
        line, code = explain(error)
        remark(line)
    return int(code or 0)


def _usage(error: Any) -> str:
    """What is wrong with the usage, and what would be right."""
    text = " ".join(error.format_message().split()).rstrip(".")
    path = error.ctx.command_path if error.ctx else "disco"
    if getattr(error, "option_name", None) == "--registry":
        return "--registry stands before the command: disco --registry URL COMMAND"
    if text.startswith("No such command"):
        return f"{text}; the commands are {', '.join(sorted(error.ctx.command.list_commands(error.ctx)))}"
    return f"{text}; see '{path} --help'"
