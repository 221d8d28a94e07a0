"""Keccak-256 of many messages of one length at once: eight permutations side by side under numba.

State word w of message l lives at `state[8 w + l]`, so the loop over l is one vector instruction
per step where the processor has them (AVX2, AVX-512, NEON). Imported only where numba is installed;
its digests are those of `keeper.hashing.keccak`, which tests check.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

LANES = 8
RATE = 136
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]


def _round_constants() -> list[int]:
    """Return ι's constants from its shift register (FIPS 202, algorithm 5)."""
    register, constants = 1, []
    for _ in range(24):
        word = 0
        for j in range(7):
            if register & 1:
                word |= 1 << ((1 << j) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        constants.append(word)
    return constants


_IOTA = np.array(_round_constants(), np.uint64)


@nb.njit(inline="always")
def _turn(x, n):  # type: ignore[no-untyped-def]  # numba compiles it
    return (x << np.uint64(n)) | (x >> np.uint64(64 - n))


@nb.njit(cache=True, boundscheck=False, error_model="numpy")
def _permute(s, iota):  # type: ignore[no-untyped-def]  # numba compiles it
    for step in range(24):
        k = iota[step]
        for i in range(LANES):
            c0 = s[i] ^ s[40 + i] ^ s[80 + i] ^ s[120 + i] ^ s[160 + i]
            c1 = s[8 + i] ^ s[48 + i] ^ s[88 + i] ^ s[128 + i] ^ s[168 + i]
            c2 = s[16 + i] ^ s[56 + i] ^ s[96 + i] ^ s[136 + i] ^ s[176 + i]
            c3 = s[24 + i] ^ s[64 + i] ^ s[104 + i] ^ s[144 + i] ^ s[184 + i]
            c4 = s[32 + i] ^ s[72 + i] ^ s[112 + i] ^ s[152 + i] ^ s[192 + i]
            d0 = c4 ^ _turn(c1, 1)
            d1 = c0 ^ _turn(c2, 1)
            d2 = c1 ^ _turn(c3, 1)
            d3 = c2 ^ _turn(c4, 1)
            d4 = c3 ^ _turn(c0, 1)
            b00 = s[i] ^ d0
            b10 = _turn(s[8 + i] ^ d1, 1)
            b20 = _turn(s[16 + i] ^ d2, 62)
            b05 = _turn(s[24 + i] ^ d3, 28)
            b15 = _turn(s[32 + i] ^ d4, 27)
            b16 = _turn(s[40 + i] ^ d0, 36)
            b01 = _turn(s[48 + i] ^ d1, 44)
            b11 = _turn(s[56 + i] ^ d2, 6)
            b21 = _turn(s[64 + i] ^ d3, 55)
            b06 = _turn(s[72 + i] ^ d4, 20)
            b07 = _turn(s[80 + i] ^ d0, 3)
            b17 = _turn(s[88 + i] ^ d1, 10)
            b02 = _turn(s[96 + i] ^ d2, 43)
            b12 = _turn(s[104 + i] ^ d3, 25)
            b22 = _turn(s[112 + i] ^ d4, 39)
            b23 = _turn(s[120 + i] ^ d0, 41)
            b08 = _turn(s[128 + i] ^ d1, 45)
            b18 = _turn(s[136 + i] ^ d2, 15)
            b03 = _turn(s[144 + i] ^ d3, 21)
            b13 = _turn(s[152 + i] ^ d4, 8)
            b14 = _turn(s[160 + i] ^ d0, 18)
            b24 = _turn(s[168 + i] ^ d1, 2)
            b09 = _turn(s[176 + i] ^ d2, 61)
            b19 = _turn(s[184 + i] ^ d3, 56)
            b04 = _turn(s[192 + i] ^ d4, 14)
            s[i] = b00 ^ (~b01 & b02) ^ k
            s[8 + i] = b01 ^ (~b02 & b03)
            s[16 + i] = b02 ^ (~b03 & b04)
            s[24 + i] = b03 ^ (~b04 & b00)
            s[32 + i] = b04 ^ (~b00 & b01)
            s[40 + i] = b05 ^ (~b06 & b07)
            s[48 + i] = b06 ^ (~b07 & b08)
            s[56 + i] = b07 ^ (~b08 & b09)
            s[64 + i] = b08 ^ (~b09 & b05)
            s[72 + i] = b09 ^ (~b05 & b06)
            s[80 + i] = b10 ^ (~b11 & b12)
            s[88 + i] = b11 ^ (~b12 & b13)
            s[96 + i] = b12 ^ (~b13 & b14)
            s[104 + i] = b13 ^ (~b14 & b10)
            s[112 + i] = b14 ^ (~b10 & b11)
            s[120 + i] = b15 ^ (~b16 & b17)
            s[128 + i] = b16 ^ (~b17 & b18)
            s[136 + i] = b17 ^ (~b18 & b19)
            s[144 + i] = b18 ^ (~b19 & b15)
            s[152 + i] = b19 ^ (~b15 & b16)
            s[160 + i] = b20 ^ (~b21 & b22)
            s[168 + i] = b21 ^ (~b22 & b23)
            s[176 + i] = b22 ^ (~b23 & b24)
            s[184 + i] = b23 ^ (~b24 & b20)
            s[192 + i] = b24 ^ (~b20 & b21)


@nb.njit(cache=True, boundscheck=False, error_model="numpy")
def _hash(words, out, iota):  # type: ignore[no-untyped-def]  # numba compiles it
    state = np.zeros(25 * LANES, np.uint64)
    count, length = words.shape
    for start in range(0, count, LANES):
        state[:] = np.uint64(0)
        lanes = min(LANES, count - start)
        for block in range(0, length, 17):
            for i in range(lanes):
                for w in range(17):
                    state[w * LANES + i] ^= words[start + i, block + w]
            _permute(state, iota)
        for i in range(lanes):
            for w in range(4):
                out[start + i, w] = state[w * LANES + i]


def keccak_rows(rows: Bytes) -> Bytes:
    """Return the digests (n × 32) of n messages, the rows of a matrix of bytes."""
    count, length = rows.shape
    padded = np.zeros((count, (length // RATE + 1) * RATE), np.uint8)
    padded[:, :length] = rows
    padded[:, length] = 1
    padded[:, -1] |= 0x80
    out = np.empty((count, 4), np.uint64)
    _hash(padded.view(np.uint64), out, _IOTA)
    return out.view(np.uint8)


@nb.njit(inline="always")
def _big_endian(x):  # type: ignore[no-untyped-def]  # numba compiles it
    x = ((x & np.uint64(0x00FF00FF00FF00FF)) << np.uint64(8)) | (
        (x >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    )
    x = ((x & np.uint64(0x0000FFFF0000FFFF)) << np.uint64(16)) | (
        (x >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    )
    return (x << np.uint64(32)) | (x >> np.uint64(32))


@nb.njit(cache=True, boundscheck=False, error_model="numpy")
def _pair(level, count, zero, parents, out, iota):  # type: ignore[no-untyped-def]  # numba compiles it
    state = np.zeros(25 * LANES, np.uint64)
    nodes = parents.shape[0]
    for start in range(0, nodes, LANES):
        state[:] = np.uint64(0)
        lanes = min(LANES, nodes - start)
        for i in range(lanes):
            left, right = 2 * parents[start + i], 2 * parents[start + i] + 1
            swapped = False
            for w in range(4):
                a = _big_endian(level[left, w])
                b = _big_endian(level[right, w] if right < count else zero[w])
                if a != b:
                    swapped = b < a
                    break
            low, high = (4, 0) if swapped else (0, 4)
            for w in range(4):
                state[(low + w) * LANES + i] = level[left, w]
                state[(high + w) * LANES + i] = level[right, w] if right < count else zero[w]
            state[8 * LANES + i] = np.uint64(1)
            state[16 * LANES + i] = np.uint64(0x8000000000000000)
        _permute(state, iota)
        for i in range(lanes):
            for w in range(4):
                out[parents[start + i], w] = state[w * LANES + i]


def hash_parents(
    level: Words, count: int, zero: bytes, parents: npt.NDArray[np.int64], above: Words
) -> None:
    """Write some parents of a level's first `count` nodes (n × 4 words) into the level above."""
    _pair(level, count, np.frombuffer(zero, np.uint64), parents, above, _IOTA)


def parent_rows(level: Bytes, zero: bytes) -> Bytes:
    """Return the parents of a level of nodes (n × 32), a missing last one being `zero`."""
    out = np.empty(((len(level) + 1) // 2, 4), np.uint64)
    words = np.ascontiguousarray(level).view(np.uint64)
    hash_parents(words, len(words), zero, np.arange(len(out)), out)
    return out.view(np.uint8)
