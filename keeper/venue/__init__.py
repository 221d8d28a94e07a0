"""Package `keeper.venue`."""
