"""What is to be rendered, from what, and how it is checked and made known. Checked when it is made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from discoclient.model.errors import ConfigError
from discoclient.model.instance import check_service
from discoclient.model.policy import check_seconds

from .commands import names_the_file

__all__ = ["Job", "Pair"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A template, and the file that is made of it."""

    template: str
    out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What `Renderer` is to do.

    Args:
        services: the services that the templates may see.
        pairs: templates and files. What changed of them is checked, replaced and reloaded together, or not at all.
        check: a shell command that passes what is good. With ``$F`` or ``{}`` in it, it is run for each new file before that
            is put in place; without, it is run once when they are in place, and they are taken back if it fails.
            Default: no check.
        reload: a shell command that makes the change known. Default: nobody is told.
        interval: seconds between two attempts at least. Default 2.0: in a deploy the new instance registers, and the old one
            drains five seconds later (``disco run --bake``), so neither waits; and a hundred hosts at a time are a reload
            every two seconds. 0: as often as something changes.
        timeout: seconds that one command may take. Default 30.0.
        discovery_timeout: seconds that the registry may take for its first answer. Default 5.0.
        once: end after the first attempt. Default: go on.
        allow_empty: render an empty service as it is. Default: its last instances are kept, and nothing is written before it
            had any.
    """

    services: tuple[str, ...]
    pairs: tuple[Pair, ...]
    check: str | None = None
    reload: str | None = None
    interval: float = 2.0
    timeout: float = 30.0
    discovery_timeout: float = 5.0
    once: bool = False
    allow_empty: bool = False

    def __post_init__(self) -> None:
        if not self.services:
            raise ConfigError("no SERVICE is named, whose instances the template is about")
        for service in self.services:
            check_service(service)
        if len(set(self.services)) < len(self.services):
            raise ConfigError("a SERVICE is named twice")
        if not self.pairs:
            raise ConfigError("there is nothing to render: --template and --out are needed")
        files = [os.path.realpath(each.out) for each in self.pairs]
        for file in files:
            if files.count(file) > 1:
                raise ConfigError(f"--out {file} is given twice")
            if any(file == os.path.realpath(each.template) for each in self.pairs):
                raise ConfigError(f"--out {file} is a template, and would be overwritten")
        for name, command in (("--check", self.check), ("--reload", self.reload)):
            if command is not None and not command.strip():
                raise ConfigError(f"{name} is empty; leave it out if nothing is to be run")
        check_seconds("--interval", self.interval, zero=True)
        check_seconds("--timeout", self.timeout)
        check_seconds("discovery_timeout", self.discovery_timeout)

    @property
    def is_checked_in_place(self) -> bool:
        """Whether the check is one of what is in place, since it does not name the new file."""
        return self.check is not None and not names_the_file(self.check)

    @property
    def names(self) -> str:
        """The files' names, for people."""
        return ", ".join(Path(each.out).name for each in self.pairs)
