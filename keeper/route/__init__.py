"""Package `keeper.route`."""
