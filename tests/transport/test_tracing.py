"""The extension ``trace``, whose events are httpcore's: so it is httpcore that carries those requests, and them alone."""

from __future__ import annotations

from typing import Any

from tests.client.fleet import Fleet
from tests.client.shells import Shell, in_every_shell
from tests.transport.engines import carried_by, everywhere, tracer, ways
from tests.transport.lending import Lender


@ways
@in_every_shell
async def test_a_request_that_is_traced_goes_over_httpcore_and_no_other_does(
    shell: Shell, fleet: Fleet
) -> None:
    server = fleet.add(http_keepalive=600)
    seen: list[str] = []
    plain: Any = {}
    traced: Any = {"extensions": {"trace": tracer(shell, seen)}}
    async with shell.client() as client:
        over = [carried_by(await client.get("/", **more)) for more in (plain, traced, plain, traced)]
        async with client.stream("GET", "/", **traced) as response:
            over.append(carried_by(response))
    assert over == ["native", "httpcore", "native", "httpcore", "httpcore"]
    assert server.accepted == 2, "each engine keeps its own connection"
    assert seen.count("connection.connect_tcp.complete") == 1
    assert seen.count("http11.receive_response_headers.complete") == 3


@everywhere
@in_every_shell
async def test_traced_requests_work_whatever_the_engine(shell: Shell, engine: str, fleet: Fleet) -> None:
    server = fleet.add()
    seen: list[str] = []
    options = {} if engine == "lent" else {"engine": engine}
    async with shell.client(**options) as client:
        response = await client.post("/", content=b"x", extensions={"trace": tracer(shell, seen)})
    assert (response.text, carried_by(response)) == (str(server.port), "httpcore")
    assert "http11.send_request_body.complete" in seen


@in_every_shell
async def test_a_client_of_httpcore_keeps_one_pool_whether_it_traces_or_not(
    shell: Shell, fleet: Fleet
) -> None:
    server = fleet.add(http_keepalive=600)
    plain: Any = {}
    traced: Any = {"extensions": {"trace": tracer(shell, [])}}
    for options in ({"engine": "httpcore"}, {"http2": True}):
        before = server.accepted
        async with shell.client(**options) as client:
            for more in (plain, traced, plain):
                await client.get("/", **more)
        assert server.accepted - before == 1


@in_every_shell
async def test_a_transport_that_is_lent_carries_what_is_traced_too(shell: Shell, fleet: Fleet) -> None:
    """It may be a proxy that is the only way there: no request goes past it."""
    server = fleet.add()
    lender, trace = Lender(), tracer(shell, [])
    async with shell.client(engine=lender) as client:
        assert (await client.get(extensions={"trace": trace})).text == "fine"
    assert server.accepted == 0
    assert lender.lent[0].requests[0].extensions["trace"] is trace
