"""gunicorn's configuration for services that register: nothing in the application, one line here. See flask_service.py."""

import os

from discoclient.gunicorn import registered

# Any free port, which callers learn from the registry; under `disco run` the one that it gives. For callers on other hosts:
# "0.0.0.0" instead of "127.0.0.1".
bind = f"127.0.0.1:{os.environ.get('PORT', '0')}"
workers = 2
threads = 4  # gunicorn's sync worker closes each connection; this kind keeps them open, and callers are glad
keepalive = 30

when_ready = registered("experiment", health_path="/healthz")
