"""nginx, HAProxy and Envoy as proxies to be measured: each is told to do as well as it can, and the same work.

That work is what a proxy in front of a service does: kept connections on both sides, the least loaded instance,
``X-Forwarded-For`` and the like added, no access log. One core each: one worker, one thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["envoy_config", "haproxy_config", "nginx_config", "nginx_stream_config", "servers_config"]

_MANY = 1_000_000
"""Requests on a connection, in the place of nginx's 1000: connections are made anew by nobody."""

_FOLDERS = "\n".join(
    f"    {name}_path {name};"
    for name in ("client_body_temp", "proxy_temp", "fastcgi_temp", "uwsgi_temp", "scgi_temp")
)


def _nginx(body: str, *, user: str | None, modules: str = "") -> str:
    return f"""\
{modules}
{f"user {user};" if user else ""}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
{body}"""


def nginx_config(port: int, ports: Sequence[int], *, user: str | None = None) -> str:
    """No spooling to disk: answers and uploads are streamed, as on the other sides. Buffers of 64 kB: with nginx's
    own of 4 kB a body of 1 MB takes it four times the CPU. Reloads as they are by default: no ``worker_shutdown_timeout``.
    """
    servers = "\n".join(f"        server 127.0.0.1:{each};" for each in ports)
    return _nginx(
        f"""\
http {{
    access_log off;
{_FOLDERS}
    client_max_body_size 0;
    upstream bench {{
        least_conn;
{servers}
        keepalive 256;
        keepalive_requests {_MANY};
    }}
    server {{
        listen 127.0.0.1:{port} backlog=511;
        keepalive_requests {_MANY};
        location / {{
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_busy_buffers_size 128k;
        }}
    }}
}}
""",
        user=user,
    )


def nginx_stream_config(port: int, ports: Sequence[int], *, module: str, user: str | None = None) -> str:
    """TCP: a connection of the caller is one to an instance. *module*: the path of ``ngx_stream_module.so``.

    Buffers of 256 kB: they take a third of the CPU off a body of 1 MB, and for TCP there are only two of them.
    """
    servers = "\n".join(f"        server 127.0.0.1:{each};" for each in ports)
    return _nginx(
        f"""\
stream {{
    upstream bench {{
        least_conn;
{servers}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=511;
        proxy_pass bench;
        proxy_buffer_size 256k;
    }}
}}
""",
        user=user,
        modules=f"load_module {module};",
    )


def haproxy_config(port: int, ports: Sequence[int], *, user: str | None = None) -> str:
    """``http-reuse always``: a request takes any idle connection to its instance, whoever opened it. Buffers of 64 kB, too."""
    servers = "\n".join(f"    server s{number} 127.0.0.1:{each}" for number, each in enumerate(ports))
    return f"""\
global
    nbthread 1
    maxconn 4096
    tune.bufsize 65536
defaults
    mode http
    timeout client 75s
    timeout connect 5s
    timeout server 75s
    http-reuse always
    option forwardfor
listen bench
    bind 127.0.0.1:{port} backlog 511
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Real-IP %[src]
    balance leastconn
{servers}
"""


def envoy_config(port: int, ports: Sequence[int], *, user: str | None = None) -> str:
    """JSON, which is YAML. No request ids and no headers of its own; the limits of its circuit breakers out of the way."""
    v3 = "type.googleapis.com/envoy.extensions.filters"
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{v3}.http.router.v3.Router", "suppress_envoy_headers": True},
    }
    connection_manager: dict[str, Any] = {
        "@type": f"{v3}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "use_remote_address": True,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "bench",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "bench", "timeout": "0s"}},
                    ],
                }
            ]
        },
        "http_filters": [router],
    }
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _MANY)
    return json.dumps(
        {
            "static_resources": {
                "listeners": [
                    {
                        "name": "bench",
                        "address": _address(port),
                        "filter_chains": [
                            {
                                "filters": [
                                    {
                                        "name": "envoy.filters.network.http_connection_manager",
                                        "typed_config": connection_manager,
                                    }
                                ]
                            }
                        ],
                    }
                ],
                "clusters": [
                    {
                        "name": "bench",
                        "type": "STATIC",
                        "lb_policy": "LEAST_REQUEST",
                        "connect_timeout": "5s",
                        "circuit_breakers": {"thresholds": [limits]},
                        "load_assignment": {
                            "cluster_name": "bench",
                            "endpoints": [
                                {
                                    "lb_endpoints": [
                                        {"endpoint": {"address": _address(each)}} for each in ports
                                    ]
                                }
                            ],
                        },
                    }
                ],
            },
        },
        indent=1,
    )


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def servers_config(*ports: int, small: str, user: str | None = None) -> str:
    """An instance of the service: an nginx of its own; with several *ports* one that looks like so many instances.

    ``/small`` and ``/work`` are *small*; files in its folder are what they are; ``/users/...`` answers with the path and the
    header ``X-Request``, so that no two answers are the same; ``/count`` tells how many requests it had. ``/upload`` takes a
    body in to its end, in memory, before it answers *small*; ``X-Received`` says how many bytes the request had in all.
    """
    listens = "\n".join(f"        listen 127.0.0.1:{each} backlog=511;" for each in ports)
    return _nginx(
        f"""\
http {{
    access_log off;
{_FOLDERS}
    sendfile on;
    server {{
{listens}
        keepalive_requests {_MANY};
        keepalive_timeout 75s;
        default_type application/json;
        root .;
        location = /small {{ return 200 '{small}'; }}
        location = /work {{ return 200 '{small}'; }}
        location /users/ {{ return 200 '{{"path": "$uri", "request": "$http_x_request"}}'; }}
        location = /count {{ stub_status; }}
        location = /upload {{
            client_max_body_size 0;
            client_body_buffer_size 16m;
            add_header X-Received $request_length;
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_pass http://127.0.0.1:{ports[0]}/small;
        }}
    }}
}}
""",
        user=user,
    )
