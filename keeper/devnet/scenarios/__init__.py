"""Scenarios: what happens on a devnet, and what must be true afterwards."""
