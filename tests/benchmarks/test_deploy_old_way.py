"""The way to deploy of 2014, as the benchmark of deploys has it: its keys, its renderer, its nginx."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from benchmarks import deploy_keys
from benchmarks.deploy_nginx import Nginx, main_config, upstream_config
from benchmarks.deploy_renderer import Renderer


async def test_the_keys_are_swapped_by_a_get_and_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, str] = {}
    asked: list[str] = []

    async def etcd(port: int, what: str, message: dict[str, str]) -> Any:
        asked.append(what)
        if what == "put":
            stored[message["key"]] = message["value"]
            return {}
        return {"kvs": [{"value": stored[message["key"]]}]} if message["key"] in stored else {"count": "0"}

    monkeypatch.setattr(deploy_keys, "_call", etcd)
    await deploy_keys.swap(1, "port", "8000")
    assert asked == ["range", "put"]
    await deploy_keys.swap(1, "port", "8001")
    assert asked[2:] == ["range", "put", "put"]
    assert await deploy_keys.read(1, "/uswitch/experiment/port/current") == "8001"
    assert await deploy_keys.read(1, "/uswitch/experiment/port/previous") == "8000"


async def test_an_answer_of_etcd_that_is_none_is_an_error() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 404 Not Found\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RuntimeError, match="404 Not Found"):
            await deploy_keys.swap(port, "pid", "1")


class FakeNginx(Nginx):
    """Renders for real; what it is told to do is written down, and whether the check is passed is ours to say."""

    def __init__(self, folder: Path, log: list[str], *, is_taken: bool = True) -> None:
        super().__init__(folder, 8080)
        object.__setattr__(self, "log", log)
        object.__setattr__(self, "is_taken", is_taken)

    def _run(self, *words: str) -> bool:
        self.log.append(words[-1])  # type: ignore[attr-defined]
        return bool(self.is_taken)  # type: ignore[attr-defined]


def values(port: int, previous: int | None = None) -> dict[str, str]:
    found = {deploy_keys.key("port", "current"): str(port), deploy_keys.key("pid", "current"): "9"}
    return found if previous is None else found | {deploy_keys.key("pid", "previous"): str(previous)}


@pytest.mark.parametrize("is_careful", [False, True])
def test_the_reload_comes_before_the_end_of_the_old_version(tmp_path: Path, is_careful: bool) -> None:
    log: list[str] = []
    renderer = Renderer(FakeNginx(tmp_path, log), lambda pid: log.append(f"end {pid}"), is_careful=is_careful)
    renderer.begin(values(7001, 41))
    renderer.apply(values(7002, 41))
    assert log == ["-t", "reload"], "the previous pid is one that was there before"
    renderer.apply(values(7002, 42))
    renderer.apply(values(7002, 42))
    assert log == ["-t", "reload", "end 42"], "what stands there already is not done again"
    renderer.apply(values(7003, 43))
    assert log[3:] == ["-t", "reload", "end 43"]
    assert "server 127.0.0.1:7003;" in Path(tmp_path, "experiment-nginx.conf").read_text()


def test_only_the_careful_one_lets_the_old_version_live_when_nginx_refuses_the_new_upstream(
    tmp_path: Path,
) -> None:
    ends: dict[bool, list[int]] = {False: [], True: []}
    for is_careful, ended in ends.items():
        log: list[str] = []
        nginx = FakeNginx(tmp_path / str(is_careful), log, is_taken=False)
        nginx.folder.mkdir()
        Renderer(nginx, ended.append, is_careful=is_careful).apply(values(7002, 42))
        assert log == ["-t"], "no reload"
    assert ends == {False: [42], True: []}


def test_nginx_is_given_the_upstream_of_2014() -> None:
    site = upstream_config(8080, 7001)
    assert "server 127.0.0.1:7001;" in site
    assert "proxy_pass http://experiment_app;" in site
    assert "keepalive" not in site
    assert "include experiment-nginx.conf;" in main_config("experiment-nginx.conf", workers=2)
