"""How does the process live? Sockets, workers, signals, and a restart that nobody notices."""
