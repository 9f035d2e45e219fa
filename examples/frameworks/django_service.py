"""A service in Django on gunicorn, in one file, registered while its workers answer, by gunicorn.conf.py.

    disco dev --nodes 1 --port 2379                         in one terminal: a real etcd, where the examples look for one
    gunicorn -c examples/frameworks/gunicorn.conf.py --pythonpath examples/frameworks --preload django_service
                                                            in a second and a third: two instances of 'experiment'
    python examples/caller_sync.py 1000                     in a fourth: who answers? End one with SIGTERM meanwhile

Needs: pip install django gunicorn. Without that configuration:

    disco run experiment --health-path /healthz -- \\
        gunicorn --bind 0.0.0.0:{port} --pythonpath examples/frameworks django_service
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from discoclient.wsgi import DiscoMiddleware

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "nothing is signed here"),
    ROOT_URLCONF=__name__,
    # Callers name the service, "experiment"; a health check names the address. What is not here is answered with 400.
    ALLOWED_HOSTS=["*"],
)


def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well\n", content_type="text/plain")


def hello(request: HttpRequest, rest: str) -> HttpResponse:
    return HttpResponse(f"/{rest} answered by {os.getpid()}\n", content_type="text/plain")


urlpatterns = [path("healthz", healthz), path("<path:rest>", hello)]

# One may leave the middleware out. It refuses what was meant for an instance that had this port before, and says who answers;
# its own name it finds in the environment.
application = DiscoMiddleware(get_wsgi_application())
