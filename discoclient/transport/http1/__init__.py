"""HTTP/1.1 over one connection: what is written and read (pure), and the connections that do it."""
