"""Package `keeper.chain`."""
