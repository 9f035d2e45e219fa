"""Another author is writing this file right now (fork, gunicorn, interpreter exit, TLS, auth, secrets, grpclib facts, conflicting distributions): leave these subjects to them."""
