"""What the tests stand on: real processes, real sockets, faults that can be switched, and waiting without sleeping."""
