"""One watch per host: a process lends what it hears of the registry, the others on its host borrow it.

It is one more registry, `sharing.registry.SharedRegistry`: each process keeps its own watch machine, presence and lease, and
checks for itself what it is told. Shared is only who asks etcd.
"""
