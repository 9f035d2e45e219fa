"""The log: quiet by default, and there for whoever sets logging up."""

from __future__ import annotations

from tests.support.processes import Processes

PROGRAM = """
import logging, sys
if sys.argv[1:] == ["loud"]:
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
import httpx
from discoclient import DiscoClient
from discoclient.testing import memory_registry
with memory_registry() as registry:
    registry.add("experiment", port=1)
    registry.add("experiment", port=2)
    try:
        DiscoClient("experiment").get("/")
    except httpx.ConnectError:
        print("refused")
"""


def test_an_ejection_is_said_to_whoever_listens_and_to_nobody_else(processes: Processes) -> None:
    for arguments, is_loud in ((["loud"], True), ([], False)):
        program = processes.python("-c", PROGRAM, *arguments)
        assert program.wait(timeout=30) == 0
        assert program.output.strip() == "refused"
        assert ("WARNING discoclient.events experiment: 127.0.0.1:" in program.errors) is is_loud
        assert is_loud or program.errors == ""
