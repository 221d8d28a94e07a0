"""Package `keeper.snapshot`."""
