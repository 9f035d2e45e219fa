"""What is an HTTP/1.1 message? Strict, and without I/O."""
