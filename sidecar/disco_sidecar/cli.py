"""The command: what was said becomes `Settings`, and these a process."""

from __future__ import annotations

import argparse
import logging
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from discoclient.model.errors import ConfigError

from . import __version__
from .options import CONFIG, OPTIONS, gather
from .running.access_log import check_log
from .running.program import program
from .running.worker import find_worker
from .settings import Settings

__all__ = ["main"]

PROG = "disco-sidecar"
FAILED, USAGE, INTERRUPTED = 1, 2, 130
_LEVELS = ("debug", "info", "warning", "error", "critical")


def main(arguments: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """Run the sidecar until it is told to end. Exit codes: 0 done, 1 failed, 2 wrong usage.

    Under another name, *prog*, this process becomes the sidecar's own, which is a smaller one.
    """
    said = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser(prog)
    try:
        known = vars(parser.parse_args(said))
    except SystemExit as end:  # argparse has said what there was to say
        return int(end.code or 0)
    flags = {option.name: known[option.name] for option in OPTIONS if known[option.name] is not None}
    try:
        _set_up_logging(os.environ)
        worker = find_worker(os.environ)
        settings = Settings.of(
            gather(flags, os.environ, config=known["config"]) if worker is None else worker.said
        )
        _check_early(settings)
    except ConfigError as error:
        return _complain(prog, error, USAGE)
    if known["check"]:
        print(_describe(settings))
        return 0
    if prog != PROG:
        command = program(said)
        os.execv(command[0], command)
    from .running.process import run  # only now: it loads the proxy

    try:
        return run(settings, said)
    except ConfigError as error:
        return _complain(prog, error, USAGE)
    except OSError as error:
        return _complain(prog, error, FAILED)
    except KeyboardInterrupt:  # before it served
        return INTERRUPTED


DESCRIPTION = """\
An address on this machine for clients that can't use the discoclient SDK.

Requests are balanced over the live instances of a service, by the SDK's own code:

  http://127.0.0.1:7500/experiment/users/1             by path
  http://experiment.disco.localhost:7500/users/1       by host
  http_proxy=http://127.0.0.1:7500 curl http://experiment/users/1
  --listen 8081=experiment, --tcp 5433=ledger          a port for each service
"""
EPILOG = """\
Each option may also stand in the environment (DISCO_SIDECAR_ALLOW_HOST=a,b) and in
the --config file (allow_host = ["a", "b"]). A flag wins over both, and the environment
over the file.

SIGTERM, SIGINT: finish what is under way, and end; a second SIGINT ends it at once.
SIGHUP: a new process, with the configuration as it is by then, takes over, and this one
ends as after SIGTERM; if the new one fails this one goes on. SIGUSR1: open the access log
again, after it was moved away. $DISCO_LOG (debug ... critical; default warning): the log on standard error.

Examples:
    {prog} --listen 8081=experiment
    {prog} --config /etc/disco-sidecar.toml --check

Exit codes:
  0  done
  1  failed: an address is taken, for instance
  2  wrong usage
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the list of all options before it."""
        self.exit(USAGE, f"{self.prog}: {message}; see '{self.prog} --help'\n")

    def format_help(self) -> str:
        return super().format_help().replace("usage:", "Usage:", 1)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        usage="%(prog)s [options]",
        description=DESCRIPTION,
        epilog=EPILOG.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"disco-sidecar {__version__}")
    parser.add_argument(
        "--config", metavar="FILE", help=f"a TOML file with the options below (default: ${CONFIG}, else none)"
    )
    parser.add_argument(
        "--check", action="store_true", help="check the options, say what they mean, and exit"
    )
    for option in OPTIONS:
        settings: dict[str, Any] = {
            "dest": option.name,
            "default": None,
            "help": option.help.replace("%", "%%"),
        }
        if option.kind is bool:
            settings["action"] = "store_true"
        else:
            settings["metavar"] = option.metavar
            if option.is_many:
                settings["action"] = "append"
        parser.add_argument(option.flag, **settings)
    return parser


def _check_early(settings: Settings) -> None:
    """What else would be found out only when it runs, or by the first request."""
    from discoclient.balancing.balancer import BALANCERS
    from discoclient.control.hub import find_address

    keyless = [
        name for name in BALANCERS if name != "rendezvous"
    ]  # which needs a key, and no request has one here
    if settings.balancer not in keyless:
        raise ConfigError(f"--balancer is one of {', '.join(keyless)}; got {settings.balancer!r}")
    try:
        address = find_address(settings.registry)
    except ConfigError as error:
        raise ConfigError(f"$DISCO_REGISTRY: {error}") from error
    if address.scheme == "memory":
        raise ConfigError("$DISCO_REGISTRY: memory:// lives within one process, and this is another one")
    if settings.policy.ca is not None:
        try:
            ssl.create_default_context(cafile=settings.policy.ca)
        except OSError as error:  # an SSLError is one
            raise ConfigError(f"--ca {settings.policy.ca}: {error.strerror or error}") from error
    check_log(settings.access_log)


def _describe(settings: Settings) -> str:
    from discoclient.control.hub import find_address

    lines = [f"registry {find_address(settings.registry)}"]
    lines += [str(listener) for listener in settings.listeners]
    if settings.hosts:
        lines.append("known as " + ", ".join(sorted(name.decode() for name in settings.hosts)))
    return "\n".join([*lines, "the configuration is good"])


def _set_up_logging(environ: Mapping[str, str]) -> None:
    level = environ.get("DISCO_LOG", "").lower() or "warning"
    if level not in _LEVELS:
        raise ConfigError(f"$DISCO_LOG is one of {', '.join(_LEVELS)}; got {level!r}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("discoclient")
    logger.handlers = [handler]
    logger.setLevel(level.upper())


def _complain(prog: str, error: Exception, code: int) -> int:
    print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
    return code
