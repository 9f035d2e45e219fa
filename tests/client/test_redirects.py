"""Where a redirect leads: to the service again, or away from it, and what goes along."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.support.servers import HttpServer, redirect

TOKEN = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize(
    "location",
    [
        "/there",
        "there",
        "//experiment/there",
        "http://experiment/there",
        "http://experiment:80/there",
        "http://experiment:8080/there",
        "https://experiment/there",
        "http://EXPERIMENT/there",
    ],
)
@in_every_shell
async def test_a_redirect_to_the_service_goes_through_the_balancer_again(
    shell: Shell, fleet: Fleet, location: str
) -> None:
    servers = [fleet.add(redirect(location)) for _ in range(2)]
    async with shell.client(follow_redirects=True, headers=TOKEN, balancer="round_robin") as client:
        response = await client.get("/")
        assert response.status_code == 200
        assert response.text.endswith(" /there")
        assert "disco" in response.extensions
    assert [server.requests for server in servers] == [1, 1]
    assert {seen.headers.get("authorization") for server in servers for seen in server.seen} == {
        "Bearer secret"
    }


@pytest.mark.parametrize(
    "write",
    [
        lambda server: f"http://{server.address}/there",
        lambda server: f"https://{server.address}/there",
        lambda server: f"//{server.address}/there",
    ],
    ids=["http", "https", "without a scheme"],
)
@pytest.mark.parametrize("is_other", [False, True], ids=["its own address", "another instance's"])
@in_every_shell
async def test_a_redirect_to_the_address_of_an_instance_is_one_to_the_service(
    shell: Shell, fleet: Fleet, write: Callable[[HttpServer], str], is_other: bool
) -> None:
    servers = [fleet.add(), fleet.add()]
    for number, server in enumerate(servers):
        server.behaviour = redirect(write(servers[1 - number] if is_other else server))
    async with shell.client(follow_redirects=True, headers=TOKEN) as client:
        response = await client.get("/")
    assert str(response.url) == "http://experiment/there"
    assert "disco" in response.extensions
    requests = [seen for server in servers for seen in server.seen]
    assert {seen.headers["host"] for seen in requests} == {"experiment"}
    assert {seen.headers.get("authorization") for seen in requests} == {"Bearer secret"}


@in_every_shell
async def test_a_redirect_that_is_not_followed_already_names_the_service(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    server.behaviour = redirect(f"http://{server.address}/there?a=b#c")
    async with shell.client() as client:
        response = await client.get("/")
        assert response.status_code == 302
        assert response.headers["location"] == "http://experiment/there?a=b#c"
        assert response.next_request is not None
        assert str(response.next_request.url) == "http://experiment/there?a=b#c"


@in_every_shell
async def test_a_location_without_a_redirect_is_left_alone(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    location = f"http://{server.address}/jobs/1"
    server.behaviour = redirect(location, status=201)
    async with shell.client() as client:
        assert (await client.post("/")).headers["location"] == location


REFUSED = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)


@pytest.mark.parametrize(
    "location",
    ["http://[", "http://a b/", "\u00e9", "", "https:[:/", "http:foo", "http://xn--ab/", "//xn--ab/"],
)
@in_every_shell
async def test_a_location_that_is_no_url_is_httpx_s_affair(shell: Shell, fleet: Fleet, location: str) -> None:
    fleet.add(redirect(location))
    async with shell.client() as client, shell.plain_client() as plain:
        ours: object = None
        theirs: object = None
        try:
            ours = (await client.get("/")).headers["location"]
        except REFUSED as error:
            ours = type(error)
        try:
            theirs = (await plain.get(next(iter(fleet.handle.instances("experiment"))).url)).headers[
                "location"
            ]
        except REFUSED as error:
            theirs = type(error)
    assert ours == theirs
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_redirect_to_another_host_leaves_the_service_and_takes_no_secret_along(
    shell: Shell, fleet: Fleet
) -> None:
    other = fleet.servers.start()
    ours = fleet.add(redirect(f"{other.url}/there"))
    async with shell.client(follow_redirects=True, headers=TOKEN, host_header="api.example.com") as client:
        response = await client.get("/")
    assert str(response.url) == f"{other.url}/there"
    assert "disco" not in response.extensions
    assert ours.requests == other.requests == 1
    assert "authorization" not in other.seen[0].headers
    assert other.seen[0].headers["host"] == other.address


@in_every_shell
async def test_a_host_that_redirects_to_the_service_leads_there(shell: Shell, fleet: Fleet) -> None:
    ours, other = fleet.add(), fleet.servers.start(redirect("http://experiment/there"))
    async with shell.client(follow_redirects=True, headers=TOKEN) as client:
        assert await client.port(f"{other.url}/") == ours.port
    assert "authorization" not in ours.seen[0].headers


@in_every_shell
async def test_a_redirect_to_the_host_header_s_name_is_one_to_the_service(shell: Shell, fleet: Fleet) -> None:
    fleet.add(redirect("https://api.example.com/there"))
    async with shell.client(host_header="api.example.com", follow_redirects=True, headers=TOKEN) as client:
        response = await client.get("/")
    assert str(response.url) == "http://experiment/there"
    assert response.request.headers["host"] == "api.example.com"
    assert response.request.headers["authorization"] == TOKEN["Authorization"]


@pytest.mark.parametrize(
    ("path", "location", "leads_to"),
    [
        ("/a/b", "/there", "/there"),
        ("/a/b", "there", "/a/there"),
        ("/a/b", "../there?x=1", "/there?x=1"),
        ("/a/b", "?x=1", "/a/b?x=1"),
        ("//elsewhere/a", "there", "/elsewhere/there"),  # a path, and not a host
        ("/a/b", "//experiment/there", "/there"),
        ("/a/b", "http://experiment/there", "/there"),
        ("/a/b", "https://experiment:8443/there", "/there"),
        ("/a/b", "disco://experiment/there", "/there"),
    ],
)
@in_every_shell
async def test_redirects_work_under_disco_urls(
    shell: Shell, fleet: Fleet, path: str, location: str, leads_to: str
) -> None:
    server = fleet.add(redirect(location, path=path))
    async with shell.many() as client:
        response = await client.get(
            httpx.URL(scheme="disco", host="experiment", raw_path=path.encode()),
            follow_redirects=True,
            headers=TOKEN,
        )
    assert [seen.target for seen in server.seen] == [path, leads_to]
    assert response.text == f"{server.port} {leads_to}"
    assert response.url.scheme == "disco"
    assert server.seen[1].headers["authorization"] == TOKEN["Authorization"]


@in_every_shell
async def test_a_redirect_to_an_instance_s_address_is_logical_under_disco_urls_too(
    shell: Shell, fleet: Fleet
) -> None:
    server = fleet.add()
    server.behaviour = redirect(f"{server.url}/there")
    async with shell.many() as client:
        response = await client.get("disco://experiment/", follow_redirects=True)
    assert str(response.url) == "disco://experiment/there"


@in_every_shell
async def test_a_redirect_from_one_service_to_another_drops_the_authorization(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.add(redirect("disco://ledger/there"))
    ledger = fleet.add(service="ledger")
    async with shell.many() as client:
        assert await client.port("disco://experiment/", follow_redirects=True, headers=TOKEN) == ledger.port
    assert "authorization" not in ledger.seen[0].headers
    assert ledger.seen[0].headers["host"] == "ledger"


@in_every_shell
async def test_a_location_without_a_scheme_that_names_another_service_leads_there_under_disco_urls(
    shell: Shell, fleet: Fleet
) -> None:
    fleet.add(redirect("//ledger/there"))
    ledger = fleet.add(service="ledger")
    async with shell.many(follow_redirects=True) as client:
        response = await client.get("disco://experiment/")
    assert str(response.url) == "disco://ledger/there"
    assert ledger.requests == 1


@in_every_shell
async def test_a_redirect_to_the_address_of_an_instance_over_ipv6_is_one_to_the_service(
    shell: Shell, fleet: Fleet
) -> None:
    server = fleet.add(redirect("http://[::1]:9/there"))
    other = fleet.register(port=9, host="::1", weight=0)
    async with shell.client() as client:
        response = await client.get("/", extensions={"disco": {"exclude": [other.id]}})
    assert response.headers["location"] == "http://experiment/there"
    assert server.requests == 1
