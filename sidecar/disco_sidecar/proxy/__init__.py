"""The data path: from a client's connection to an instance's, and back."""
