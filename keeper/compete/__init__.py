"""Package `keeper.compete`."""
