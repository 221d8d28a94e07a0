"""Package `keeper.intent`."""
