"""The sidecar: discoclient for clients that can't use the SDK. For now a skeleton that says so."""

__all__ = ["__version__"]

__version__ = "0.1.0"
