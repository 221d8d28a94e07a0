"""Package `keeper.web`."""
