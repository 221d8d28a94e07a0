"""Package `p2p.agreement`."""
