"""Package `keeper.settle`."""
