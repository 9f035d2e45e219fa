"""Many services in one client: a transport that is mounted at disco://.

    disco dev --nodes 1 --port 2379                     in one terminal: a real etcd, where the examples look for one
    python examples/service_http_server.py              in a second: an instance of 'experiment'
    python examples/service_http_server.py ledger       in a third: an instance of 'ledger'
    python examples/many_services.py                    in a fourth

An httpx client that a program has already keeps all that it does; what is new is what disco:// means.
"""

import httpx

from discoclient import DiscoTransport, RoutingError


def main() -> None:
    with httpx.Client(mounts={"disco://": DiscoTransport()}) as client:
        for url in ("disco://experiment/users/1", "disco://ledger/accounts?of=1", "disco://nobody/"):
            try:
                response = client.get(url)
            except RoutingError as error:
                print(f"{url}: {type(error).__name__}")
            else:
                instance = response.extensions["disco"].instance
                print(
                    f"{url}: {response.text.strip()} (an instance of {instance.service!r} at {instance.address})"
                )


if __name__ == "__main__":
    main()
