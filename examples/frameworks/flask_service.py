"""A service in Flask on gunicorn, registered while its workers answer, by gunicorn.conf.py.

    disco dev --nodes 1 --port 2379                         in one terminal: a real etcd, where the examples look for one
    gunicorn -c examples/frameworks/gunicorn.conf.py --pythonpath examples/frameworks flask_service:app
                                                            in a second and a third: two instances of 'experiment'
    python examples/caller_sync.py 1000                     in a fourth: who answers? End one with SIGTERM meanwhile

Needs: pip install flask gunicorn. Without that configuration:

    disco run experiment --health-path /healthz -- \\
        gunicorn --bind 0.0.0.0:{port} --pythonpath examples/frameworks flask_service:app
"""

import os

from flask import Flask, Response

from discoclient.wsgi import DiscoMiddleware

app = Flask(__name__)
# One may leave this out. It refuses what was meant for an instance that had this port before, and says who answers; its own
# name it finds in the environment.
app.wsgi_app = DiscoMiddleware(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/healthz")
def healthz() -> Response:
    return Response("well\n", mimetype="text/plain")


@app.get("/<path:path>")
def hello(path: str) -> Response:
    return Response(f"/{path} answered by {os.getpid()}\n", mimetype="text/plain")
