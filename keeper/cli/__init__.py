"""Package `keeper.cli`."""
