"""The sidecar as a process: options, sockets, restarts, workers, signals."""
