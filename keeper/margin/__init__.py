"""Package `keeper.margin`."""
