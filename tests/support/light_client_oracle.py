"""Runs the official specification (minimal preset): a job on stdin, its course on stdout.

Not imported by tests: it is the program of another environment, which has eth-consensus-specs.
"""

import json
import sys

from eth_consensus_specs.electra import (  # type: ignore[import-not-found]  # the oracle's own
    minimal as spec,
)


def main() -> None:
    job = json.load(sys.stdin)
    forks = ("ALTAIR", "BELLATRIX", "CAPELLA", "DENEB", "ELECTRA")
    changes = {f"{name}_FORK_EPOCH": spec.Epoch(0) for name in forks}
    changes["ELECTRA_FORK_VERSION"] = spec.Version(bytes.fromhex(job["version"]))
    spec.config = spec.config._replace(**changes)
    bootstrap = spec.LightClientBootstrap.decode_bytes(bytes.fromhex(job["bootstrap"]))
    store = spec.initialize_light_client_store(bytes.fromhex(job["root"]), bootstrap)
    course = []
    for raw, now in job["updates"]:
        try:
            update = spec.LightClientUpdate.decode_bytes(bytes.fromhex(raw))
            root = spec.Root(bytes.fromhex(job["genesis_validators_root"]))
            spec.process_light_client_update(store, update, spec.Slot(now), root)
        except Exception:  # noqa: BLE001 the specification raises anything for a bad update
            refused = True
        else:
            refused = False
        final = bytes(spec.hash_tree_root(store.finalized_header.beacon)).hex()
        course.append([refused, final, int(store.optimistic_header.beacon.slot)])
    json.dump(course, sys.stdout)


main()
