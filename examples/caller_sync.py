"""A caller in sync code.

    disco dev --nodes 1 --port 2379             in one terminal: a real etcd, where the examples look for one
    python examples/service_http_server.py      in a second and a third: two instances of 'experiment'
    python examples/caller_sync.py              in a fourth

Start and end instances meanwhile, nicely (Ctrl-C) or not (kill -9): the requests go on. How many to send can be given as an
argument (10), and how many seconds to wait after each (0.2).
"""

import sys
import time

import httpx

from discoclient import DiscoClient, NoInstances


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0.2

    # For a single request this is all: DiscoClient("experiment").get("/users/1"). Making a client is cheap.
    with DiscoClient("experiment") as client:
        for number in range(1, count + 1):
            try:
                response = client.get(f"/users/{number}")
            except NoInstances as error:  # the registry is there, and nobody is registered
                print(error)
            except httpx.HTTPError as error:  # everything else is as with httpx, and so is this
                print(f"{type(error).__name__}: {error}")
            else:
                routed = response.extensions["disco"]
                tries = "" if routed.attempts == 1 else f", at the {routed.attempts}. attempt"
                print(f"{response.text.strip()} (instance {routed.instance.address}{tries})", flush=True)
            time.sleep(pause)


if __name__ == "__main__":
    main()
