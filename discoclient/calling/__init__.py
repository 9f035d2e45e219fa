"""What happens in one call? The flow, the same for sync and async. Pure."""
