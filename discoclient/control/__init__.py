"""How do we keep knowing? The one background loop, the followers on it, and the resolvers that publish views."""
