"""Package `keeper.devnet`."""
