"""Routing: which way funds go between places, how well, and a proof of how well.

Pure: no clock, no chance, no socket. Floats live inside the optimisers only.
"""
