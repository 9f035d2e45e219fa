"""The real pure code in virtual time: `python -m benchmarks.sim`. No sockets, no threads, no clock; a seed gives one result."""
