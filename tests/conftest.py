"""Fixtures every test may ask for."""

from tests.support.anvil import anvil_binary

__all__ = ["anvil_binary"]
