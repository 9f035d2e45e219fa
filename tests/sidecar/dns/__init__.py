"""The sidecar's DNS: asked by the library that it is written with, and by another one (dnspython) as a second opinion."""
