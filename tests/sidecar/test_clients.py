"""Real clients, as people use them: curl, wget, Node, requests, urllib and http.client."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from .origin import Exchange, Origin, reply
from .stage import Stage

BODY = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    def mirror(exchange: Exchange) -> None:
        exchange.send(reply(200, exchange.read_body(), "Content-Type: application/octet-stream"))

    def chunks(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(BODY), 9999):
            part = BODY[at : at + 9999]
            exchange.send(b"%x\r\n%b\r\n" % (len(part), part))
        exchange.send(b"0\r\n\r\n")

    with Stage() as stage:
        stage.origin.on("/mirror", mirror)
        stage.origin.on("/chunks", chunks)
        stage.origin.on("/redirect", reply(302, b"", "Location: /experiment/chunks"))
        yield stage


def run(program: str, *arguments: str, data: bytes = b"", **env: str) -> bytes:
    """What *program* prints. It must succeed."""
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} on this machine")
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run([program, *arguments], input=data, capture_output=True, timeout=20, env=clean | env)
    assert done.returncode == 0, (done.returncode, done.stderr.decode(errors="replace"))
    return done.stdout


def curl(*arguments: str, data: bytes = b"", **env: str) -> bytes:
    return run("curl", "--silent", "--show-error", "--max-time", "10", *arguments, data=data, **env)


def test_curl_by_every_way_in(stage: Stage) -> None:
    port, own = stage.sidecar.port, stage.sidecar.service_port
    assert curl(f"http://127.0.0.1:{port}/experiment/chunks") == BODY
    assert curl(f"http://localhost:{port}/experiment/chunks") == BODY
    assert (
        curl(
            "--resolve",
            f"experiment.disco.localhost:{port}:127.0.0.1",
            f"http://experiment.disco.localhost:{port}/chunks",
        )
        == BODY
    )
    assert curl(f"http://127.0.0.1:{own}/chunks") == BODY
    assert curl(f"http://[::1]:{own}/chunks") == BODY
    assert curl("http://experiment/chunks", http_proxy=f"http://127.0.0.1:{port}") == BODY
    assert curl("--proxy", f"127.0.0.1:{port}", "http://experiment/chunks") == BODY
    assert curl("--unix-socket", stage.sidecar.unix, "http://localhost/chunks") == BODY


def test_curl_by_http_1_0(stage: Stage) -> None:
    assert curl("--http1.0", f"http://127.0.0.1:{stage.sidecar.port}/experiment/chunks") == BODY


@pytest.mark.parametrize(
    "fields", [[], ["Transfer-Encoding: chunked"], ["Expect:"], ["Expect: 100-continue"]]
)
def test_curl_uploads(stage: Stage, fields: list[str]) -> None:
    extra = [word for field in fields for word in ("--header", field)]
    url = f"http://127.0.0.1:{stage.sidecar.port}/experiment/mirror"
    assert curl("--data-binary", "@-", *extra, url, data=BODY) == BODY
    assert curl("--upload-file", "-", *extra, url, data=BODY) == BODY


def test_curl_takes_many_from_one_connection(stage: Stage) -> None:
    url = f"http://127.0.0.1:{stage.sidecar.port}/experiment/chunks?[1-30]"
    out = (
        curl("--output", "/dev/null", "--write-out", "%{http_code} %{num_connects}\\n", url).decode().split()
    )
    assert out[::2] == ["200"] * 30
    assert sum(int(number) for number in out[1::2]) == 1


def test_curl_asks_for_http_2_and_gets_http_1(stage: Stage) -> None:
    assert curl("--http2", f"http://127.0.0.1:{stage.sidecar.port}/experiment/chunks") == BODY


def test_curl_head_and_range(stage: Stage) -> None:
    url = f"http://127.0.0.1:{stage.sidecar.port}/experiment/x"
    assert b"200" in curl("--head", url).splitlines()[0]
    curl("--range", "0-1", url)
    assert stage.origin.requests[-1].get("range") == "bytes=0-1"


def test_curl_is_refused_a_tunnel_and_a_stranger(stage: Stage) -> None:
    proxy = ["--proxy", f"http://127.0.0.1:{stage.sidecar.port}"]
    code = ["--output", "/dev/null", "--write-out", "%{http_code} %{http_connect}"]
    assert curl(*proxy, *code, "http://evil.example/") == b"403 000"
    done = subprocess.run(
        ["curl", "-s", "-m", "5", *proxy, "--proxytunnel", *code, "http://experiment/"], capture_output=True
    )
    assert done.returncode != 0
    assert done.stdout == b"000 405"


def test_wget_by_path_and_as_proxy(stage: Stage) -> None:
    port = stage.sidecar.port
    options = ["--quiet", "--tries=1", "--timeout=10", "--output-document=-"]
    assert run("wget", *options, f"http://127.0.0.1:{port}/experiment/chunks") == BODY
    assert run("wget", *options, "http://experiment/chunks", http_proxy=f"http://127.0.0.1:{port}") == BODY
    assert run("wget", *options, f"http://127.0.0.1:{port}/experiment/redirect") == BODY


NODE = """
const http = require('http');
const [port, count] = process.argv.slice(1).map(Number);
const agent = new http.Agent({keepAlive: true, maxSockets: 2});
const sockets = new Set();
function once(number) {
  return new Promise((resolve, reject) => {
    const request = http.request({port, host: '127.0.0.1', path: '/experiment/mirror', method: 'POST', agent}, response => {
      const parts = [];
      response.on('data', part => parts.push(part));
      response.on('end', () => resolve([response.statusCode, Buffer.concat(parts).toString()]));
    });
    request.on('socket', socket => sockets.add(socket));
    request.on('error', reject);
    request.write('a' + number); request.end('b');
  });
}
(async () => {
  const answers = await Promise.all(Array.from({length: count}, (_, number) => once(number)));
  const fetched = await fetch(`http://127.0.0.1:${port}/experiment/chunks`);
  const bytes = (await fetched.arrayBuffer()).byteLength;
  const posted = await fetch(`http://localhost:${port}/experiment/mirror`, {method: 'POST', body: 'hello'});
  const streamed = await fetch(`http://127.0.0.1:${port}/experiment/mirror`, {method: 'PUT', duplex: 'half',
    body: new ReadableStream({start(c) { c.enqueue(new TextEncoder().encode('part1')); setTimeout(() => {
      c.enqueue(new TextEncoder().encode('part2')); c.close(); }, 5); }})});
  console.log(JSON.stringify({answers, sockets: sockets.size, status: fetched.status, bytes,
    posted: await posted.text(), streamed: await streamed.text()}));
  agent.destroy();
})();
"""


def test_node_by_fetch_and_by_an_agent_that_keeps_connections(stage: Stage) -> None:
    said = json.loads(run("node", "-e", NODE, str(stage.sidecar.port), "30"))
    assert said["answers"] == [[200, f"a{number}b"] for number in range(30)]
    assert said["sockets"] <= 2
    assert (said["status"], said["bytes"]) == (200, len(BODY))
    assert (said["posted"], said["streamed"]) == ("hello", "part1part2")


def test_requests_with_a_session(stage: Stage) -> None:
    requests = pytest.importorskip("requests")
    base = f"http://127.0.0.1:{stage.sidecar.port}/experiment"
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(10):
            assert session.get(f"{base}/chunks", timeout=10).content == BODY
            assert session.post(f"{base}/mirror", data=BODY, timeout=10).content == BODY
        assert session.put(f"{base}/mirror", data=iter([b"ab", b"cd"]), timeout=10).content == b"abcd"
        assert session.get(f"{base}/redirect", timeout=10).content == BODY
        assert session.head(f"{base}/x", timeout=10).status_code == 200
        proxies = {"http": f"http://127.0.0.1:{stage.sidecar.port}"}
        assert session.get("http://experiment/chunks", proxies=proxies, timeout=10).content == BODY
        assert session.get("http://evil.example/", proxies=proxies, timeout=10).status_code == 403


def test_urllib_by_path_and_as_proxy(stage: Stage) -> None:
    port = stage.sidecar.port
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with plain.open(f"http://127.0.0.1:{port}/experiment/chunks", timeout=10) as answer:
        assert answer.read() == BODY
    with plain.open(f"http://127.0.0.1:{port}/experiment/mirror", data=BODY, timeout=10) as answer:
        assert answer.read() == BODY
    proxied = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{port}"}))
    with proxied.open("http://experiment/chunks", timeout=10) as answer:
        assert answer.read() == BODY
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        plain.open(f"http://127.0.0.1:{port}/nobody/x", timeout=10)
    with refused.value as answer:
        assert b"nobody" in answer.read()


def test_http_client_keeps_its_connection(stage: Stage) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stage.sidecar.port, timeout=10)
    try:
        connection.connect()
        socket = connection.sock
        for number in range(20):
            connection.request("PUT", "/experiment/mirror", body=iter([b"a", b"%d" % number]))
            assert connection.getresponse().read() == b"a%d" % number
            assert connection.sock is socket
    finally:
        connection.close()


def test_control_a_client_notices_when_nobody_is_there() -> None:
    with Origin() as gone:
        port = gone.port
    with pytest.raises(AssertionError, match="7"):
        curl(f"http://127.0.0.1:{port}/")
