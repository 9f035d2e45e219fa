"""A renderer in a thread, on a registry in this process; its commands are small shell scripts that write down that they ran."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from disco_sidecar.rendering import Job, Pair, Renderer, Told
from discoclient import connect
from tests.cli.records import Records
from tests.support.eventually import eventually

__all__ = ["TEMPLATE", "Scene"]

TEMPLATE = "{% for i in services.experiment.instances %}{{ i.address }}\n{% endfor %}"
SLOW = 20.0
"""Seconds that a busy machine may take for what takes it a moment."""


class Scene:
    """In a folder: ``t.j2`` and the ``out`` that is made of it. The check says no as long as ``bad`` exists and is in its file;
    the reload fails as long as ``broken`` exists. ``log`` has a line for each run, with the file's content then.
    """

    def __init__(self, folder: Path, *, url: str | None = None, **options: Any) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.log = folder / "log"
        self.bad = folder / "bad"
        self.broken = folder / "broken"
        self.told: list[Told] = []
        self.records = Records(url or f"memory://{uuid.uuid4().hex}")
        (folder / "t.j2").write_text(options.pop("template", TEMPLATE))
        log, note = self.log, "$(tr '\\n' ' ' < \"$F\")"
        self.check = (
            f'echo "check {note}" >> {log}; ! grep -sqf {self.bad} "$F" || {{ echo it is bad; exit 1; }}'
        )
        self.reload = (
            f'echo "reload {note}" >> {log}; if [ -e {self.broken} ]; then echo no can do; exit 7; fi'
        )
        self.options = {
            "services": ("experiment",),
            "pairs": (Pair(str(folder / "t.j2"), str(self.out)),),
            "check": self.check,
            "reload": self.reload,
            "interval": 0.05,
        } | options
        self.error: BaseException | None = None
        self.is_well: bool | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        handle = connect(self.records.url)
        self.renderer = Renderer(Job(**self.options), handle, tell=self.told.append)

        def run() -> None:
            try:
                with handle:
                    self.is_well = self.renderer.run()
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self.renderer.stop()
            self._thread.join(SLOW)
            assert not self._thread.is_alive()
            self._thread = None

    def run(self) -> bool | None:
        """A run with ``once``, to its end."""
        self.options["once"] = True
        self.start()
        assert self._thread is not None
        self._thread.join(SLOW)
        self.stop()
        if self.error is not None:
            raise self.error
        return self.is_well

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def runs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def kinds(self) -> list[str]:
        return [told.kind for told in self.told]

    def wait_told(self, kind: str, words: str = "", *, after: int = 0) -> Told:
        """The first thing of that kind, with these words, after so many."""
        eventually(
            lambda: any(each.kind == kind and words in each.text for each in self.told[after:]),
            timeout=SLOW,
            what=f"{kind} {words}: {self.told}",
        )
        return next(each for each in self.told[after:] if each.kind == kind and words in each.text)

    def wait_out(self, *ports: int) -> None:
        wanted = "".join(f"10.0.0.5:{port}\n" for port in ports)
        eventually(
            lambda: self.out.exists() and self.out.read_text() == wanted, timeout=SLOW, what=f"{self.told}"
        )

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("."))
