"""How does a service live? It registers when it is ready, is kept registered, drains, and leaves."""
