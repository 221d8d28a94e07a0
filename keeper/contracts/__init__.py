"""Package `keeper.contracts`."""
