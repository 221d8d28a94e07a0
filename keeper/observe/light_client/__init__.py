"""Light clients: what a chain's own consensus signed, checked here; no endpoint is believed.

    ssz, bls ─▶ beacon        Ethereum: sync committee ─▶ finalized header ─▶ execution block hash
    mpt      ─▶ output_root   OP-style: slot on L1 ─▶ output root ─▶ L2 block and state root
    rlp, mpt ─▶ claims        no light client: a bonded claim, open to challenge for a period

Everything here is pure but `rest` and `service`, which fetch from a beacon node's REST endpoint.
"""
