"""Decisions: policies are plug-ins, found by the entry-point group `keeper.policies`."""
