"""The registry in etcd: the only place that knows etcd's wire."""
