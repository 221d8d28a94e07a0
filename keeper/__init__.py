"""The keeper node: what a peer sees, computes, decides, sends and settles.

Rooms and who may import whom are drawn in docs/architecture.md.
"""

__version__ = "0.1.0"
