"""The words: what everything else speaks about. No behaviour worth a bug, no I/O, no time, no chance."""
