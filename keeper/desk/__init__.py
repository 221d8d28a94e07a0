"""Package `keeper.desk`: policies at work on venues that no committee guards."""
