"""How is a request carried? Two thin shells around the flow of a call, a pool per endpoint, and the wire."""
