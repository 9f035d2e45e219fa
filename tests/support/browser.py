"""A real browser for tests: headless Chromium, driven by the DevTools protocol over a pipe. Nothing to install but Chromium.

::

    with Browser() as browser:
        browser.open("http://127.0.0.1:7501/")
        browser.wait_for("document.querySelectorAll('tbody tr').length == 3")
        browser.screenshot("page.png")
        assert not browser.problems

No WebDriver and no websocket: with ``--remote-debugging-pipe`` Chromium reads commands from descriptor 3 and writes answers and
events to 4, each a JSON text that ends with a zero byte.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from discoclient.system.process import end, spawn

__all__ = ["Browser", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root, and open nothing but our own pages
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-zygote",  # its children are its own, and gone when it is
    "--no-proxy-server",
    "--password-store=basic",
    "--remote-debugging-pipe",
)
# What it gets as standard input and output become 3 and 4, where Chromium looks for the pipe.
_SHIM = """
import os, sys
os.dup2(0, 3); os.dup2(1, 4)
os.dup2(os.open(os.devnull, os.O_RDWR), 0); os.dup2(2, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""


def find_chromium() -> str | None:
    """Where Chromium is: ``$CHROMIUM``, else on the ``PATH``; ``None`` if it is not. For ``pytest.mark.skipif``."""
    wanted = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [wanted] if wanted else _NAMES)), None)


class Browser:
    """One page in one browser, with a profile of its own that is thrown away. Use it as a context manager.

    Args:
        flags: more of Chromium's command line, such as ``--host-resolver-rules=...`` or ``--proxy-server=...``.
        size: the page's width and height in CSS pixels. Default 1280 x 800.
        timeout: seconds that Chromium has for each command, and to start. Default 20.
    """

    def __init__(self, *flags: str, size: tuple[int, int] = (1280, 800), timeout: float = 20.0) -> None:
        found = find_chromium()
        assert found is not None, f"no Chromium: none of {', '.join(_NAMES)} is on the PATH"
        self._timeout = timeout
        self.console: list[str] = []
        """What the page wrote to its console, ``level: text``."""
        self.problems: list[str] = []
        """Errors and warnings from the console, exceptions that nobody caught, and what the browser itself found wrong (a
        broken Content-Security-Policy, a failed load)."""
        self.requests: list[str] = []
        """The URL of every request that the page made or tried."""
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: set[str] = set()
        self._number = 0
        self._is_gone = False
        self._session: str | None = None
        self._folder = tempfile.mkdtemp(prefix="test-browser-")
        self._errors = open(Path(self._folder, "errors.txt"), "wb+")  # noqa: SIM115 - closed by close()
        profile = Path(self._folder, "profile")
        keeps_proxy = any(flag.startswith("--proxy-server") for flag in flags)
        own = [flag for flag in _FLAGS if not (keeps_proxy and flag == "--no-proxy-server")]
        self._process = spawn(
            [
                *(sys.executable, "-I", "-S", "-c", _SHIM, found),
                *(*own, f"--user-data-dir={profile}", *flags, "about:blank"),
            ],
            env=os.environ | {"HOME": self._folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._reader = threading.Thread(target=self._read, name="test-browser", daemon=True)
        self._reader.start()
        try:
            self._attach(size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what a test does

    def open(self, url: str) -> None:
        """Go there, and wait until the document and all it refers to are loaded (not for what scripts fetch later)."""
        with self._changed:
            self._events.discard("Page.loadEventFired")
        answer = self.command("Page.navigate", url=url)
        if "errorText" in answer:
            raise AssertionError(f"{url}: {answer['errorText']}")
        self._wait(lambda: "Page.loadEventFired" in self._events, f"{url} did not load")

    def eval(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON gives it; a promise's is waited for."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {_thrown(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, timeout: float = 10.0) -> Any:
        """The first true value of *expression*, looked at again and again. What it throws counts as "not yet"."""
        deadline = time.monotonic() + timeout
        while True:
            is_last = time.monotonic() >= deadline
            try:
                value = self.eval(expression)
                problem = f"last: {value!r}"
                if value:
                    return value
            except AssertionError as error:
                problem = str(error)
            if is_last:
                raise AssertionError(
                    f"not within {timeout:g} s: {expression} ({problem}); console: {self.console}"
                )
            time.sleep(0.02)

    def text(self, selector: str = "body") -> str:
        """What is to be read in the first element that *selector* finds, as it is laid out."""
        return str(self.eval(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str) -> None:
        """Press and release a key, such as ``Tab``, ``Enter`` or ``a``."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        typed = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=typed, **common)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def resize(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """The page's size in CSS pixels; *scale*: pixels of a screenshot to each."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def prefer(self, scheme: Literal["dark", "light"], *, less_motion: bool = False) -> None:
        """What the user's system is set to."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce" if less_motion else "no-preference"},
        ]
        self.command("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: str | os.PathLike[str], *, whole: bool = False) -> None:
        """A PNG of what is to be seen; with *whole*, of the page down to its end."""
        options: dict[str, Any] = {"format": "png"}
        if whole:
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            options |= {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        answer = self.command("Page.captureScreenshot", **options)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def forget(self) -> None:
        """Begin anew with what the page said, asked for and did wrong: for a browser that several tests share."""
        with self._changed:
            for noted in (self.console, self.problems, self.requests):
                noted.clear()

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Any command of the DevTools protocol to the page, and its result."""
        return self._command(method, parameters, self._session)

    def close(self) -> None:
        """End the browser, and remove its profile. Can be called again."""
        if self._process.poll() is None:
            with contextlib.suppress(AssertionError, OSError):
                self._send("Browser.close", {}, None)
                self._process.wait(5.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        end(self._process, grace=0.0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its children, of the session that it led
        self._reader.join(5.0)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        for _ in range(50):  # the last of its children may still be writing there
            shutil.rmtree(self._folder, ignore_errors=True)
            if not os.path.exists(self._folder):
                break
            time.sleep(0.02)

    # ---- inside

    def _attach(self, size: tuple[int, int]) -> None:
        target = self._command("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        answer = self._command("Target.attachToTarget", {"targetId": target, "flatten": True}, None)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")
        self.resize(*size)

    def _command(self, method: str, parameters: dict[str, Any], session: str | None) -> dict[str, Any]:
        number = self._send(method, parameters, session)
        self._wait(lambda: number in self._answers, f"no answer to {method}")
        with self._changed:
            answer = self._answers.pop(number)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _send(self, method: str, parameters: dict[str, Any], session: str | None) -> int:
        with self._changed:
            self._number += 1
            number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\0")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise AssertionError(f"the browser is gone; it said: {self._said()}") from error
        return number

    def _wait(self, is_there: Any, what: str) -> None:
        with self._changed:
            came = self._changed.wait_for(lambda: is_there() or self._is_gone, self._timeout)
            if not came or not is_there():
                raise AssertionError(f"{what}; the browser said: {self._said()}")

    def _said(self) -> str:
        return Path(self._folder, "errors.txt").read_text(errors="replace")[-2000:]

    def _read(self) -> None:
        assert self._process.stdout is not None
        descriptor, rest = self._process.stdout.fileno(), b""
        while True:
            try:
                data = os.read(descriptor, 1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            *messages, rest = (rest + data).split(b"\0")
            with self._changed:
                for message in messages:
                    self._note(json.loads(message))
                self._changed.notify_all()
        with self._changed:
            self._is_gone = True
            self._changed.notify_all()

    def _note(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, told = message["method"], message.get("params", {})
        self._events.add(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            words = " ".join(str(each.get("value", each.get("description"))) for each in told["args"])
            self.console.append(f"{told['type']}: {words}")
            if told["type"] in ("error", "warning", "assert"):
                self.problems.append(self.console[-1])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {_thrown(told['exceptionDetails'])}")
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            entry = told["entry"]
            self.problems.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}".rstrip())


def _thrown(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details.get("text"))
