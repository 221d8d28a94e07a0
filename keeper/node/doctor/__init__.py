"""The preflight: what would keep a node from its work, found before it starts.

    machine.py  keccak, engines, disk, clock ─┐
    home.py     configuration, keys, ports   ─┼─▶ Finding(check, grade, says, remedy) ─▶ CLI
    chains.py   endpoints, contracts, money  ─┘

What is measured and what is judged are apart: judging is pure, so every grade has a test.
"""
