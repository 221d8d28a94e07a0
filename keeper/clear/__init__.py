"""Package `keeper.clear`."""
