"""Package `p2p.frost`."""
