"""Package `keeper.execute`."""
