"""The page in a real browser: what it shows, that it lives, and that nothing it shows can do anything."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from disco_sidecar.admin import Limits
from tests.support.browser import Browser, find_chromium

from .scene import scene
from .serving import Served
from .states import HOSTILE, a_service, a_state, an_event, an_instance

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")

QUICK = Limits(period=0.1)
TIMES = "\u00d7"
ROWS = "document.querySelectorAll('tbody tr').length"

# The least contrast of any text that stands on the page with what it stands on (WCAG 2: 4.5 is enough, "AA").
LEAST_CONTRAST = """(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = [21, ""];
  for (const node of document.querySelectorAll("body *")) {
    const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!hasText || !node.getClientRects().length || node.closest("script, style, noscript")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst = [contrast, node.textContent.slice(0, 40)];
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    with Browser("--host-resolver-rules=MAP evil.example 127.0.0.1") as one:
        yield one


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    shared_browser.open("about:blank")
    shared_browser.forget()
    shared_browser.resize(1280, 800)
    shared_browser.prefer("light", less_motion=True)
    yield shared_browser
    shared_browser.open("about:blank")


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(scene(0), limits=QUICK) as server:
        yield server


def test_it_shows_services_instances_and_what_is_known_of_them(browser: Browser, served: Served) -> None:
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 8")
    text = browser.text().replace("\u00a0", " ").replace("\u202f", " ")
    for words in (
        "4242", "3 d 2 h", "38 of 12 904", "etcd://10.0.0.5:2379", "12 bad request, 1 cross site",
        "127.0.0.1:8081 → experiment", "live", "proved 1 s ago", "revision 4 711", "6 instances, 1 ejected", "PeakEwma",
        "registry out of reach: perhaps old", "proved 34 s ago", "nothing known yet", "the registry did not answer",
        "28.7 ms", "10.0.0.11:20621", "eu-1a", "1.5.0", "ejected for 18 s", "failed several times in a row", "draining",
        "vanished", "too many retries of late", f"{TIMES}14",
    ):  # fmt: skip
        assert words in text, f"{words!r} is not in\n{text}"
    cells = browser.eval("[...document.querySelector('tbody tr').cells].map((cell) => cell.innerText.trim())")
    assert cells[2:6] == ["1.4.2", "eu-1a", "100", "4"]
    assert cells[7:9] == ["3.81", "100.0"]


def test_it_asks_nobody_else_and_has_nothing_to_complain_of(browser: Browser, served: Served) -> None:
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 8")
    assert sorted(browser.requests) == [f"{served.url}/", f"{served.url}/api/events"]
    assert browser.problems == []
    assert browser.console == []


def test_it_lives_without_being_loaded_again_and_keeps_what_stays(browser: Browser, served: Served) -> None:
    served.state = a_state()
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 1")
    browser.eval("window.before = document.querySelector('tbody tr')")
    served.state = a_state(
        a_service(
            in_flight=77,
            instances=[
                an_instance(in_flight=55, ejected_for=4.2, reason="connect"),
                an_instance("i-00000002"),
            ],
        )
    )
    browser.wait_for(f"{ROWS} === 2")
    assert browser.eval("document.querySelector('tbody tr') === window.before")
    assert "ejected for 5 s" in browser.text("tbody tr").replace("\u00a0", " ")
    assert "connections fail" in browser.text("tbody tr")
    assert "77" in browser.text(".numbers")
    assert browser.eval("document.title") == "▲ 1 · disco sidecar"
    served.state = a_state()
    browser.wait_for(f"{ROWS} === 1 && document.title === 'disco sidecar'")
    assert sorted(browser.requests) == [f"{served.url}/", f"{served.url}/api/events"]


def test_what_happens_stands_there_as_it_happens(browser: Browser, served: Served) -> None:
    served.state = a_state(events=[])
    browser.open(served.url)
    browser.wait_for("document.body.innerText.includes('Nothing yet.')")
    for times in range(1, 4):
        served.happenings.add("experiment", "budget", "too many retries")
        served.state = a_state(events=served.happenings.recent())
        wanted = "too many retries" + (f"  {TIMES}{times}" if times > 1 else "")
        browser.wait_for(f"document.querySelector('.events .what')?.textContent === {wanted!r}")
        assert browser.eval("document.querySelectorAll('.events li').length") == 1


def test_the_rate_of_an_instance_is_what_it_got_lately(browser: Browser, served: Served) -> None:
    served.state = a_state(a_service(instances=[an_instance("a" * 8), an_instance("b" * 8)]))
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 2")
    busy = a_service(instances=[an_instance("a" * 8, requests=1201), an_instance("b" * 8, requests=99_999)])
    served.state = a_state(busy)
    rates = "[...document.querySelectorAll('.share span')].map((each) => parseFloat(each.textContent.replace(/\\s/g, '')))"
    browser.wait_for(f"{rates}[1] > 100 && {rates}[0] < 10 && {rates}[0] > 0")
    assert browser.eval("document.querySelectorAll('.share b')[1].style.transform") == "scaleX(1)"


def test_a_name_is_text_whatever_it_looks_like(browser: Browser, served: Served) -> None:
    hostile = a_service(
        HOSTILE, problem=HOSTILE, phase=HOSTILE, balancer=HOSTILE, reasons={HOSTILE: 1},
        instances=[an_instance(HOSTILE, address=HOSTILE, version=HOSTILE, zone=HOSTILE, hostname=HOSTILE, standing=HOSTILE,
                               reason=HOSTILE, ejected_for=1.0)],
    )  # fmt: skip
    served.state = a_state(
        hostile,
        a_service("__proto__"),
        events=[an_event(HOSTILE, service=HOSTILE, kind=HOSTILE)],
        version=HOSTILE, registry=HOSTILE, refused={HOSTILE: 1}, unready=[HOSTILE],
        ways=[{"kind": HOSTILE, "address": HOSTILE, "service": HOSTILE}],
    )  # fmt: skip
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 2")
    served.happenings.add(HOSTILE, HOSTILE, HOSTILE)
    browser.wait_for("document.querySelectorAll('.events li').length >= 1")
    assert browser.text("h2") == HOSTILE
    assert browser.eval("document.querySelectorAll('img').length") == 0
    assert browser.eval("document.querySelectorAll('script').length") == 1
    assert browser.eval("document.title") != "owned"
    assert browser.problems == []
    assert sorted(set(browser.requests)) == [f"{served.url}/", f"{served.url}/api/events"]


def test_even_a_mistake_in_the_script_could_not_make_markup_of_it(browser: Browser, served: Served) -> None:
    """The negative control of the test above: the policy itself refuses what would be dangerous."""
    browser.open(served.url)
    for markup in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.setAttribute('onclick', 'alert(1)')",
    ):
        with pytest.raises(AssertionError, match="requires 'Trusted"):
            browser.eval(markup)
    browser.eval("document.body.append(Object.assign(document.createElement('img'), {src: '/x.png'}))")
    browser.eval("fetch('http://127.0.0.1:9/').catch(() => 1)")
    for directive in ("img-src", "connect-src"):
        assert any(directive in problem for problem in browser.problems), browser.problems


def test_dark_and_light_are_both_readable(browser: Browser, served: Served) -> None:
    backgrounds = set()
    served.state["sidecar"]["is_draining"] = True
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 8")
    for scheme in ("light", "dark"):
        browser.prefer(scheme, less_motion=True)  # type: ignore[arg-type]
        backgrounds.add(browser.eval("getComputedStyle(document.body).backgroundColor"))
        contrast, text = browser.eval(LEAST_CONTRAST)
        assert contrast >= 4.5, f"{text!r} has a contrast of {contrast:.2f} in {scheme}"
    assert len(backgrounds) == 2


def test_it_fits_a_phone_and_a_wide_screen(browser: Browser, served: Served, tmp_path: Path) -> None:
    served.state = scene(3)
    long, address = "extremely-long-" * 8, "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:65535"
    stretched = an_instance(version=long, zone=long, address=address)
    served.state["services"].append(a_service("long", instances=[stretched]))
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 9")
    for width in (320, 400, 760, 1024, 1280, 1920):
        browser.resize(width, 800)
        assert browser.eval("document.documentElement.scrollWidth") <= width
    browser.resize(400, 800)
    assert browser.eval("document.querySelector('tbody tr').getBoundingClientRect().right") <= 400
    browser.screenshot(tmp_path / "page.png", whole=True)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_it_says_when_the_connection_is_lost_and_comes_back(browser: Browser) -> None:
    with Served(limits=QUICK) as served:
        browser.open(served.url)
        browser.wait_for(f"{ROWS} === 1")
        assert browser.text("#link") == "watching"
        assert not browser.eval("document.querySelector('#lost').checkVisibility()")
        port = served.port
    browser.wait_for("document.querySelector('#lost').checkVisibility()")
    assert browser.text("#link") == "connection lost"
    assert "The sidecar does not answer." in browser.text("#lost")
    assert browser.eval(ROWS) == 1, "what was known is still there"
    with Served(a_state(a_service("other")), limits=QUICK, port=port):
        browser.wait_for("document.querySelector('h2').textContent === 'other'")
        assert browser.text("#link") == "watching"
        assert not browser.eval("document.querySelector('#lost').checkVisibility()")


def test_the_chart_is_read_with_the_keyboard(browser: Browser, served: Served) -> None:
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 8")
    stops = []
    for _ in range(12):
        browser.press("Tab")
        stops.append(
            browser.eval(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
            )
        )
    assert [stop for stop in stops if stop.startswith("experiment")], stops
    charts = [stop for stop in stops if "the last two minutes" in stop]
    assert len(charts) >= 2, stops
    assert charts[0].startswith("Requests a second")
    browser.eval("document.querySelector('.plot').focus()")
    for _ in range(3):
        browser.press("ArrowLeft")
    assert "/s, " in browser.text(".caption")
    assert browser.eval("document.querySelector('line.cursor').getAttribute('visibility')") == "visible"
    browser.press("Escape")
    assert "requests/s" in browser.text(".caption")


def test_the_history_begins_with_what_the_sidecar_remembers_and_grows(
    browser: Browser, served: Served
) -> None:
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 8")
    points = "document.querySelector('path.line').getAttribute('d').split(/[ML]/).length - 1"
    assert browser.eval(points) == 120
    label = browser.eval("document.querySelector('.plot').getAttribute('aria-label')")
    served.state = scene(5)
    browser.wait_for(f"document.querySelector('.plot').getAttribute('aria-label') !== {label!r}")
    assert browser.eval(points) == 120


def test_of_very_many_instances_the_first_and_the_ejected_stand_there_until_all_are_wanted(
    browser: Browser, served: Served
) -> None:
    many = [an_instance(f"i-{number:08d}") for number in range(300)]
    many[200] |= {"ejected_for": 9.0, "reason": "connect"}
    served.state = a_state(a_service(instances=many))
    browser.open(served.url)
    browser.wait_for(f"{ROWS} === 51")
    browser.eval("document.querySelector('section button').click()")
    browser.wait_for(f"{ROWS} === 300")


@pytest.mark.parametrize("services", [[], None], ids=["none yet", "nothing registered"])
def test_nothing_to_show_is_said(
    browser: Browser, served: Served, services: list[dict[str, Any]] | None
) -> None:
    state = a_state(a_service(instances=[]))
    if services is not None:
        state["services"] = services
    served.state = deepcopy(state)
    browser.open(served.url)
    words = (
        "curl http://127.0.0.1:7500/" if services is not None else "Nothing is registered under this name."
    )
    browser.wait_for(f"document.body.innerText.includes({words!r})")


# ---- other sites


def test_a_name_that_is_made_to_resolve_to_loopback_gets_nothing(browser: Browser, served: Served) -> None:
    browser.open(f"http://evil.example:{served.port}/api/services")
    assert "does not go by that name" in browser.text()
    assert served.asked == 0


def test_another_site_can_neither_read_nor_ask_nor_frame(browser: Browser, served: Served) -> None:
    with Served(limits=QUICK) as other:
        browser.open(f"{other.url}/healthz")
        asked = served.asked
        for mode in ("cors", "no-cors"):
            read = browser.eval(
                f"(async () => {{ try {{ const a = await fetch('{served.url}/api/services', {{mode: '{mode}'}});"
                " return await a.text(); } catch (error) { return String(error); } })()"
            )
            assert "experiment" not in read
        assert served.asked == asked


def test_a_link_from_another_site_may_be_followed(browser: Browser, served: Served) -> None:
    browser.open("data:text/html,<a>runbook</a>")
    browser.eval(f"void (location.href = '{served.url}/')")
    browser.wait_for(f"{ROWS} === 8")
