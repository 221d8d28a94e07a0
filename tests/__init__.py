"""Package `tests`."""
