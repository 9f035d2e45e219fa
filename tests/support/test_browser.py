"""The browser for tests does what it says, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser import Browser, find_chromium
from .eventually import eventually

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    with Browser(size=(640, 480)) as one:
        yield one


@pytest.fixture
def browser(shared_browser: Browser) -> Browser:
    shared_browser.open("data:text/html,<title>t</title><body><p>hello</p><input>")
    shared_browser.forget()
    return shared_browser


def test_it_opens_evaluates_and_reads(browser: Browser) -> None:
    assert browser.text() == "hello"
    assert browser.eval("[document.title, {a: innerWidth}]") == ["t", {"a": 640}]
    assert browser.eval("new Promise((done) => setTimeout(() => done(7), 10))") == 7
    assert browser.eval("undefined") is None


def test_it_waits_for_what_becomes_true_and_says_what_did_not(browser: Browser) -> None:
    browser.eval("void setTimeout(() => { window.there = 'yes'; }, 50)")
    assert browser.wait_for("window.there") == "yes"
    with pytest.raises(AssertionError, match=r"not within 0.1 s: 1 === 2 \(last: False\)"):
        browser.wait_for("1 === 2", timeout=0.1)
    with pytest.raises(AssertionError, match="ReferenceError"):
        browser.wait_for("nothing.there", timeout=0.1)


def test_what_a_script_throws_is_raised(browser: Browser) -> None:
    with pytest.raises(AssertionError, match="no such luck"):
        browser.eval("(() => { throw new Error('no such luck'); })()")


def test_the_console_is_heard_and_problems_are_told_apart(browser: Browser) -> None:
    browser.eval("console.log('a', 1)")
    browser.eval("console.error('b')")
    browser.eval("void setTimeout(() => { throw new Error('c'); })")
    browser.wait_for("new Promise((done) => setTimeout(() => done(true), 20))")
    assert browser.console == ["log: a 1", "error: b"]
    assert browser.problems[0] == "error: b"
    assert "Error: c" in browser.problems[1]


def test_requests_are_noted_even_those_that_fail(browser: Browser) -> None:
    browser.eval("fetch('http://127.0.0.1:9/x').catch(() => 1)")
    assert browser.requests == ["http://127.0.0.1:9/x"]
    with pytest.raises(AssertionError, match="ERR_"):
        browser.open("http://127.0.0.1:9/")


def test_keys_sizes_and_preferences_reach_the_page(browser: Browser, tmp_path: Path) -> None:
    browser.press("Tab")
    for key in "ab":
        browser.press(key)
    assert browser.eval("document.querySelector('input').value") == "ab"
    browser.resize(300, 200)
    assert browser.eval("innerWidth") == 300
    browser.prefer("dark")
    assert browser.eval("matchMedia('(prefers-color-scheme: dark)').matches")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes()[16:24] == (300).to_bytes(4) + (200).to_bytes(4)


def test_it_ends_with_all_its_processes_and_its_profile() -> None:
    with Browser() as one:
        pid, folder = one._process.pid, Path(one._folder)
        assert folder.exists()
    one.close()
    assert not folder.exists()
    eventually(lambda: not _is_group(pid))


def _is_group(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
