"""Jinja2, set up for configuration files: nothing undefined passes, and what is rendered depends on the registry alone."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import StrictUndefined, TemplateRuntimeError, TemplateSyntaxError, UndefinedError

from discoclient.model.errors import ConfigError

from .fleet import Service, Target, word

__all__ = ["RenderFailed", "Template"]


class RenderFailed(Exception):
    """The template could not be rendered. The message has its file and line."""


class _Missing(StrictUndefined):
    """An undefined value, whose message names what there would be."""

    @property
    def _undefined_message(self) -> str:
        kind = type(self._undefined_obj)
        if kind is Target:
            return f"an instance has no {self._undefined_name!r}; it has {_names(Target.__slots__)}"
        if kind is Service:
            names = _names([*Service.__slots__, "keepalive", "scheme"])
            return f"a service has no {self._undefined_name!r}; it has {names}"
        return super()._undefined_message


class _Services(dict[str, Service]):
    """By name, in the order of the command line."""

    def __missing__(self, name: str) -> NoReturn:
        raise UndefinedError(f"the service {name!r} is not asked for; the services are {_names(self)}")


class Template:
    """A template in a file. What it includes or extends is looked for in its own folder.

    ``trim_blocks`` and ``lstrip_blocks`` are on: a line with nothing but a ``{% ... %}`` leaves nothing behind. What can give
    another text each time (``random``, ``lipsum``) is not there: each difference is a reload.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises `ConfigError`, with file and line, if it can't be read or is no template."""
        self.path = Path(path)
        self._environment = environment = jinja2.Environment(
            undefined=_Missing,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
            auto_reload=False,
            loader=jinja2.FileSystemLoader(self.path.parent),
        )
        for table, name in ((environment.filters, "random"), (environment.globals, "lipsum")):
            del table[name]
        environment.filters["word"] = word
        environment.globals["fail"] = _fail
        environment.globals["env"] = dict(os.environ)
        try:
            text = self.path.read_text(encoding="utf-8")
            code = environment.compile(text, self.path.name, str(self.path))
        except TemplateSyntaxError as error:
            raise ConfigError(f"{self.path}:{error.lineno}: {error.message}") from error
        except OSError as error:
            raise ConfigError(f"can't read the template {self.path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the template {self.path} is not UTF-8: {error.reason}") from error
        self._template = jinja2.Template.from_code(environment, code, environment.make_globals(None))

    def render(self, services: Mapping[str, Service]) -> bytes:
        """What it gives for *services*. Raises `RenderFailed`."""
        try:
            return self._template.render(services=_Services(services)).encode()
        except TemplateSyntaxError as error:  # in what it includes
            where = error.filename or error.name
            raise RenderFailed(f"{where}:{error.lineno}: {error.message}") from error
        except Exception as error:  # whatever the template's author did wrong, it is told with its place
            raise RenderFailed(f"{self._place(error)}: {_said(error)}") from error

    def _place(self, error: Exception) -> str:
        """File and line of the template; where one includes another, of the inner one."""
        folder = str(self.path.parent)
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if str(Path(frame.filename).parent) == folder and not frame.filename.endswith(".py"):
                return f"{frame.filename}:{frame.lineno}"
        return str(self.path)


def _fail(text: str) -> NoReturn:
    """For templates: what is there is not enough to make a file of."""
    raise TemplateRuntimeError(text)


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, jinja2.TemplateNotFound):
        return f"there is no template {error.name!r} beside it"
    return text if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {text}"


def _names(names: Any) -> str:
    return ", ".join(sorted(names))
