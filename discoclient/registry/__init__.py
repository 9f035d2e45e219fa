"""Who exists? The raw registries (etcd, memory, static), the wire format, and the machine that never loses track."""
