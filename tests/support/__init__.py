"""Package `tests.support`."""
