"""Package `keeper.route.bridges`."""
