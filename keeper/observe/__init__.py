"""Package `keeper.observe`."""
