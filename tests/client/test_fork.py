"""A process that forks after it has used a client: real etcd, since what is in memory is each process's own."""

from __future__ import annotations

from collections import Counter

from discoclient import register
from discoclient.control.hub import fresh_hub
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.servers import HttpServer, Servers, answer

PROGRAM = """
import asyncio, os, sys, threading, time
from discoclient import AsyncDiscoClient, DiscoClient, connect

wanted = sys.argv[1]
client = DiscoClient("experiment", headers={"x-who": "parent"}, balancer="round_robin")
is_over = threading.Event()
errors = []

def run_child(number):
    with DiscoClient("experiment") as own:
        for each in (client, own):
            each.headers["x-who"] = f"child{number}"
            deadline = time.monotonic() + 30
            while each.get("/").text != wanted:
                assert time.monotonic() < deadline, "the later registration was not seen"
                time.sleep(0.01)

def run_async_child(number):
    async def main():
        async with AsyncDiscoClient("experiment", headers={"x-who": f"child{number}"}) as own:
            while (await own.get("/")).text != wanted:
                await asyncio.sleep(0.01)
    asyncio.run(asyncio.wait_for(main(), 30))

def load():
    while not is_over.is_set():
        try:
            client.get("/", headers={"x-who": "load"})
        except Exception as error:
            errors.append(repr(error))

client.get("/")
open_response = client.send(client.build_request("GET", "/"), stream=True)
thread = threading.Thread(target=load)
thread.start()
children = []
for number in range(3):
    pid = os.fork()
    if not pid:
        (run_async_child if number == 2 else run_child)(number)
        sys.exit(20 + number)
    children.append(pid)
print("forked", flush=True)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
is_over.set()
thread.join()
open_response.read()
assert open_response.text
print("children ended", codes, "errors", errors, flush=True)
for _ in range(10):
    client.get("/")
with connect() as handle:
    print("parent knows", len(handle.instances("experiment")), "age", handle.age("experiment") < 30, flush=True)
"""


def test_children_and_parent_go_on_each_on_their_own(
    servers: Servers, processes: Processes, registry_url: str
) -> None:
    """Two children that use the parent's client and one of their own, and one that is asynchronous."""
    before, later = servers.several(2, answer(None))
    with (
        fresh_hub(),
        register("experiment", before.port, host="127.0.0.1", registry=registry_url, http_keepalive=600),
    ):
        program = processes.code(PROGRAM, str(later.port), env={"DISCO_REGISTRY": registry_url})
        program.wait_for_line("forked", timeout=40.0)
        with register("experiment", later.port, host="127.0.0.1", registry=registry_url, http_keepalive=600):
            program.wait_for_line("children ended [20, 21, 22] errors []", timeout=40.0)
            program.wait_for_line("parent knows 2 age True", timeout=20.0)
            assert program.wait(timeout=20.0) == 0
    assert program.errors == ""
    for server in (before, later):
        check_that_nobody_shares_a_connection(server)
    assert callers(later) >= {"child0", "child1", "child2", "parent"}
    eventually(lambda: before.connections == later.connections == 0, timeout=20.0)


def callers(server: HttpServer) -> set[str]:
    return {seen.headers["x-who"] for seen in server.seen}


def check_that_nobody_shares_a_connection(server: HttpServer) -> None:
    """Each connection is one process's: the parent's threads share theirs, a child has its own."""
    by_connection: dict[int, set[str]] = {}
    for seen in server.seen:
        who = seen.headers["x-who"]
        by_connection.setdefault(seen.connection, set()).add("parent" if who == "load" else who)
    shared = {number: who for number, who in by_connection.items() if len(who) > 1}
    assert shared == {}
    parent = Counter(seen.connection for seen in server.seen if seen.headers["x-who"] in ("parent", "load"))
    assert len(parent) <= 3  # which it went on using, instead of making one anew


HELD = """
import os, signal, sys, threading
from discoclient import DiscoClient

client = DiscoClient("experiment")
client.get("/")
is_held, is_over = threading.Event(), threading.Event()

def hold():
    with client.cookies.jar._cookies_lock:  # as for each answer, in whichever thread
        is_held.set()
        is_over.wait()

thread = threading.Thread(target=hold)
thread.start()
is_held.wait()
pid = os.fork()
if not pid:
    signal.alarm(int(sys.argv[1]))
    os._exit(0 if client.get("/").text == "ok" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
is_over.set()
thread.join()
"""


def test_a_lock_of_the_cookie_jar_that_a_thread_held_at_the_fork_is_free_in_the_child(
    processes: Processes, servers: Servers
) -> None:
    """It is the standard library's, taken for every answer, and nobody would ever let go of it in the child."""
    server = servers.start(answer(b"ok"))
    program = processes.code(HELD, "20", env={"DISCO_REGISTRY": f"static://experiment={server.address}"})
    assert program.wait_for_line(timeout=30.0) == "0"
    assert program.wait(timeout=30.0) == 0
