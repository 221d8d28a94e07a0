"""Prime-order groups: secp256k1 over coincurve's raw CFFI, Ed25519 over libsodium.

    secret scalar   Secret      only base_point / multiply_add / add / negate / reduce_*: constant
                                time inside the C library, result in a fresh buffer
    public scalar   int         may enter `multiply`, which is variable time
    element         Element     never the identity; decoding checks curve and subgroup

`coincurve._libsecp256k1` is a private API: the release is pinned, only this module touches it, and
`_self_test` runs at import. Measured: `ec_pubkey_tweak_mul` shows a 4.5 times timing spread over
scalars, so no secret may reach `multiply`; a test reads the syntax tree to keep it so.
"""

import hmac
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import coincurve
import nacl.bindings as sodium
from coincurve._libsecp256k1 import ffi, lib

from p2p.frost.secret import Secret

RandomBytes = Callable[[int], bytes]


class Element:
    """A group element that is not the identity: the library's form, and its encoding on demand."""

    __slots__ = ("_encode", "_raw", "native")

    def __init__(self, native: Any, encode: Callable[[Any], bytes], raw: bytes | None = None):
        self.native, self._encode, self._raw = native, encode, raw

    @property
    def raw(self) -> bytes:
        """The canonical encoding."""
        if self._raw is None:
            self._raw = self._encode(self.native)
        return self._raw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Element) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Element({self.raw.hex()})"


class Group(Protocol):
    """What FROST needs of a group; both implementations run through the same tests."""

    name: str
    order: int
    element_size: int
    scalar_size: int

    def encode_scalar(self, scalar: int) -> bytes:
        """Return the canonical bytes of a public scalar below the order."""
        ...

    def decode_scalar(self, raw: bytes) -> int:
        """Return a public scalar. Raises ValueError unless canonical."""
        ...

    def decode(self, raw: bytes) -> Element:
        """Return an element. Raises ValueError if off the curve, small or the identity."""
        ...

    def sum(self, elements: Sequence[Element]) -> Element:
        """Return the sum. Raises ValueError if it is the identity."""
        ...

    def multiply(self, element: Element, scalar: int) -> Element:
        """Return scalar · element in VARIABLE time: public scalars only, not zero."""
        ...

    def negate(self, element: Element) -> Element:
        """Return the inverse element."""
        ...

    def base_public(self, scalar: int) -> Element:
        """Return scalar · base for a public scalar that is not zero."""
        ...

    def base_point(self, secret: Secret) -> Element:
        """Return secret · base in constant time."""
        ...

    def secret(self, raw: bytes) -> Secret:
        """Return a secret scalar. Raises ValueError unless canonical and not zero."""
        ...

    def multiply_add(self, a: Secret, b: Secret, factor: int) -> Secret:
        """Return a + b · factor in constant time; factor is public."""
        ...

    def scale(self, a: Secret, factor: int) -> Secret:
        """Return a · factor in constant time; factor is public."""
        ...

    def add(self, a: Secret, b: Secret) -> Secret:
        """Return a + b in constant time."""
        ...

    def negate_secret(self, a: Secret) -> Secret:
        """Return −a in constant time."""
        ...

    def polynomial(self, coefficients: Sequence[Secret], x: int) -> Secret:
        """Return Σ a_k·x^k in constant time; x is public, coefficients ascend."""
        ...

    def reduce_secret(self, wide: bytes) -> Secret:
        """Return the suite's wide hash output as a secret scalar, in constant time."""
        ...


_CONTEXT: Final = coincurve.GLOBAL_CONTEXT.ctx
_BUFFER: Final = ffi.typeof("unsigned char[]")
_POINT: Final = ffi.typeof("secp256k1_pubkey *")
_COMPRESSED: Final = 258
_UNCOMPRESSED: Final = 2


def _serialize(native: Any, form: int, size: int) -> bytes:
    out = ffi.new(_BUFFER, size)
    length = ffi.new("size_t *", size)
    lib.secp256k1_ec_pubkey_serialize(_CONTEXT, out, length, native, form)
    return bytes(ffi.buffer(out, size))


def _encode_k1(native: Any) -> bytes:
    return _serialize(native, _COMPRESSED, 33)


class Secp256k1:
    """libsecp256k1; elements are `secp256k1_pubkey *`, encoded in 33 bytes."""

    name = "secp256k1"
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    field = 2**256 - 2**32 - 977
    element_size = 33
    scalar_size = 32
    _two_256 = (2**256 % order).to_bytes(32, "big")

    def encode_scalar(self, scalar: int) -> bytes:
        """Return 32 big-endian bytes."""
        return scalar.to_bytes(32, "big")

    def decode_scalar(self, raw: bytes) -> int:
        """Return a scalar below the order."""
        scalar = int.from_bytes(raw, "big")
        if len(raw) != 32 or scalar >= self.order:
            raise ValueError("scalar is not canonical")
        return scalar

    def decode(self, raw: bytes) -> Element:
        """Return the point of a compressed encoding."""
        native = ffi.new(_POINT)
        if len(raw) != 33 or not lib.secp256k1_ec_pubkey_parse(_CONTEXT, native, raw, 33):
            raise ValueError("element is not on the curve")
        return Element(native, _encode_k1, bytes(raw))

    def coordinates(self, element: Element) -> tuple[int, int]:
        """Return the affine (x, y)."""
        raw = _serialize(element.native, _UNCOMPRESSED, 65)
        return int.from_bytes(raw[1:33], "big"), int.from_bytes(raw[33:], "big")

    def sum(self, elements: Sequence[Element]) -> Element:
        """Return the sum of points."""
        native = ffi.new(_POINT)
        natives = [element.native for element in elements]
        if not lib.secp256k1_ec_pubkey_combine(_CONTEXT, native, natives, len(natives)):
            raise ValueError("element is the identity")
        return Element(native, _encode_k1)

    def multiply(self, element: Element, scalar: int) -> Element:
        """Return scalar · element in variable time."""
        native = ffi.new(_POINT, element.native[0])
        if not lib.secp256k1_ec_pubkey_tweak_mul(_CONTEXT, native, scalar.to_bytes(32, "big")):
            raise ValueError("scalar is zero")
        return Element(native, _encode_k1)

    def negate(self, element: Element) -> Element:
        """Return the point with the other Y."""
        native = ffi.new(_POINT, element.native[0])
        lib.secp256k1_ec_pubkey_negate(_CONTEXT, native)
        return Element(native, _encode_k1)

    def base_public(self, scalar: int) -> Element:
        """Return scalar · base."""
        native = ffi.new(_POINT)
        if not lib.secp256k1_ec_pubkey_create(_CONTEXT, native, scalar.to_bytes(32, "big")):
            raise ValueError("scalar is zero")
        return Element(native, _encode_k1)

    def base_point(self, secret: Secret) -> Element:
        """Return secret · base in constant time."""
        native = ffi.new(_POINT)
        held = ffi.from_buffer(_BUFFER, secret.buffer)
        if not lib.secp256k1_ec_pubkey_create(_CONTEXT, native, held):
            raise ValueError("secret is not a scalar")
        return Element(native, _encode_k1)

    def secret(self, raw: bytes) -> Secret:
        """Return a secret scalar in [1, order)."""
        if len(raw) != 32 or not lib.secp256k1_ec_seckey_verify(_CONTEXT, raw):
            raise ValueError("secret is not a canonical scalar")
        return Secret(raw)

    def multiply_add(self, a: Secret, b: Secret, factor: int) -> Secret:
        """Return a + b · factor."""
        result = self.scale(b, factor)
        self._add_into(result, a)
        return result

    def scale(self, a: Secret, factor: int) -> Secret:
        """Return a · factor."""
        result = Secret(a.buffer)
        held = ffi.from_buffer(_BUFFER, result.buffer)
        if not lib.secp256k1_ec_seckey_tweak_mul(_CONTEXT, held, factor.to_bytes(32, "big")):
            raise ValueError("factor is zero")
        return result

    def add(self, a: Secret, b: Secret) -> Secret:
        """Return a + b."""
        result = Secret(a.buffer)
        self._add_into(result, b)
        return result

    def _add_into(self, result: Secret, other: Secret) -> None:
        held = ffi.from_buffer(_BUFFER, result.buffer)
        if not lib.secp256k1_ec_seckey_tweak_add(
            _CONTEXT, held, ffi.from_buffer(_BUFFER, other.buffer)
        ):
            raise ValueError("sum of secrets is zero")

    def negate_secret(self, a: Secret) -> Secret:
        """Return −a."""
        result = Secret(a.buffer)
        lib.secp256k1_ec_seckey_negate(_CONTEXT, ffi.from_buffer(_BUFFER, result.buffer))
        return result

    def polynomial(self, coefficients: Sequence[Secret], x: int) -> Secret:
        """Return Σ a_k·x^k by Horner's rule in one buffer."""
        factor = x.to_bytes(32, "big")
        result = Secret(coefficients[-1].buffer)
        held = ffi.from_buffer(_BUFFER, result.buffer)
        for coefficient in reversed(coefficients[:-1]):
            term = ffi.from_buffer(_BUFFER, coefficient.buffer)
            if not (
                lib.secp256k1_ec_seckey_tweak_mul(_CONTEXT, held, factor)
                and lib.secp256k1_ec_seckey_tweak_add(_CONTEXT, held, term)
            ):
                raise ValueError("polynomial value is zero")
        return result

    def reduce_secret(self, wide: bytes) -> Secret:
        """Return 48 big-endian bytes modulo the order, as high · 2^256 + low."""
        high = Secret(wide[:16].rjust(32, b"\0"))
        result = self.scale(high, int.from_bytes(self._two_256, "big"))
        self._add_into(result, Secret(wide[16:]))
        high.wipe()
        return result


def _same(native: Any) -> bytes:
    return bytes(native)


class Ed25519:
    """libsodium; elements are their 32-byte encodings, in the prime-order subgroup."""

    name = "ed25519"
    order = 2**252 + 27742317777372353535851937790883648493
    element_size = 32
    scalar_size = 32

    def encode_scalar(self, scalar: int) -> bytes:
        """Return 32 little-endian bytes."""
        return scalar.to_bytes(32, "little")

    def decode_scalar(self, raw: bytes) -> int:
        """Return a scalar below the order."""
        scalar = int.from_bytes(raw, "little")
        if len(raw) != 32 or scalar >= self.order:
            raise ValueError("scalar is not canonical")
        return scalar

    def decode(self, raw: bytes) -> Element:
        """Return a point of the prime-order subgroup."""
        if len(raw) != 32 or not sodium.crypto_core_ed25519_is_valid_point(bytes(raw)):
            raise ValueError("element is not a point of the subgroup")
        return Element(bytes(raw), _same, bytes(raw))

    def _element(self, raw: bytes) -> Element:
        if raw == b"\x01" + bytes(31):
            raise ValueError("element is the identity")
        return Element(raw, _same, raw)

    def sum(self, elements: Sequence[Element]) -> Element:
        """Return the sum of points."""
        total: bytes = elements[0].native
        for element in elements[1:]:
            total = sodium.crypto_core_ed25519_add(total, element.native)
        return self._element(total)

    def multiply(self, element: Element, scalar: int) -> Element:
        """Return scalar · element."""
        if scalar == 0:
            raise ValueError("scalar is zero")
        return self._element(
            sodium.crypto_scalarmult_ed25519_noclamp(scalar.to_bytes(32, "little"), element.native)
        )

    def negate(self, element: Element) -> Element:
        """Return the point with the other X."""
        raw = element.raw
        return self._element(raw[:31] + bytes([raw[31] ^ 0x80]))

    def base_public(self, scalar: int) -> Element:
        """Return scalar · base."""
        if scalar == 0:
            raise ValueError("scalar is zero")
        return self._element(
            sodium.crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little"))
        )

    def base_point(self, secret: Secret) -> Element:
        """Return secret · base in constant time."""
        return self._element(sodium.crypto_scalarmult_ed25519_base_noclamp(secret.reveal()))

    def secret(self, raw: bytes) -> Secret:
        """Return a secret scalar in [1, order)."""
        wide = bytes(raw) + bytes(32)
        if len(raw) != 32 or not hmac.compare_digest(
            sodium.crypto_core_ed25519_scalar_reduce(wide), bytes(raw)
        ):
            raise ValueError("secret is not a canonical scalar")
        if hmac.compare_digest(bytes(raw), bytes(32)):
            raise ValueError("secret is not a canonical scalar")
        return Secret(raw)

    def multiply_add(self, a: Secret, b: Secret, factor: int) -> Secret:
        """Return a + b · factor."""
        return self.add(self.scale(b, factor), a)

    def scale(self, a: Secret, factor: int) -> Secret:
        """Return a · factor."""
        if factor == 0:
            raise ValueError("factor is zero")
        return Secret(
            sodium.crypto_core_ed25519_scalar_mul(a.reveal(), factor.to_bytes(32, "little"))
        )

    def add(self, a: Secret, b: Secret) -> Secret:
        """Return a + b."""
        return Secret(sodium.crypto_core_ed25519_scalar_add(a.reveal(), b.reveal()))

    def negate_secret(self, a: Secret) -> Secret:
        """Return −a."""
        return Secret(sodium.crypto_core_ed25519_scalar_negate(a.reveal()))

    def polynomial(self, coefficients: Sequence[Secret], x: int) -> Secret:
        """Return Σ a_k·x^k by Horner's rule."""
        result = coefficients[-1]
        for coefficient in reversed(coefficients[:-1]):
            result = self.multiply_add(coefficient, result, x)
        return Secret(result.buffer)

    def reduce_secret(self, wide: bytes) -> Secret:
        """Return 64 little-endian bytes modulo the order."""
        return Secret(sodium.crypto_core_ed25519_scalar_reduce(wide))


SECP256K1_GROUP: Final = Secp256k1()
ED25519_GROUP: Final = Ed25519()


def random_secret(group: Group, random_bytes: RandomBytes) -> Secret:
    """Return a uniform non-zero secret scalar (wide reduction, no rejection)."""
    return group.reduce_secret(random_bytes(48 if group.name == "secp256k1" else 64))


def _self_test() -> None:
    """Check the private API against known answers: a changed binding must not pass as a curve."""
    group = SECP256K1_GROUP
    one, two = group.base_public(1), group.base_public(2)
    generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    seven = group.multiply_add(Secret(bytes(31) + b"\x01"), Secret(bytes(31) + b"\x03"), 2)
    negated = group.negate_secret(seven).reveal()
    checks = (
        one.raw.hex() == generator,
        group.sum([one, one]).raw == two.raw == group.multiply(one, 2).raw,
        seven.reveal() == bytes(31) + b"\x07",
        int.from_bytes(negated, "big") == group.order - 7,
        group.base_point(seven).raw == group.multiply(one, 7).raw,
        group.negate(one).raw[1:] == one.raw[1:] and group.negate(one).raw[0] == 3,
        group.reduce_secret(b"\x00" * 15 + b"\x01" + bytes(31) + b"\x05").reveal()
        == ((2**256 + 5) % group.order).to_bytes(32, "big"),
    )
    if not all(checks):
        raise ImportError("coincurve's libsecp256k1 does not behave as expected; reinstall 21.0.0")


_self_test()
