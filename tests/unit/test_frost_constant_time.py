"""No secret reaches a variable-time multiplication: read from the syntax tree, not from habit.

    multiply, ec_pubkey_tweak_mul     variable time: a public scalar only
    int.from_bytes, pow, %            Python integers: never of a secret

A value is tainted if it is a `Secret`, comes from a function that returns one, or is computed from
a tainted value; declassified are the results that get published. A planted violation must be found.
"""

import ast
from pathlib import Path

import pytest

from tests.support.shared import ROOT

FOLDER = ROOT / "p2p" / "frost"
RAW = {"secp256k1_ec_pubkey_tweak_mul", "crypto_scalarmult_ed25519_noclamp"}
"""C functions that are variable time; only `Group.multiply` may call them."""
VARIABLE = {"multiply", "base_public", "from_bytes", "decode_scalar", "encode_scalar", "pow"}
SOURCES = {
    "Secret", "secret", "random_secret", "multiply_add", "scale", "negate_secret", "reduce_secret",
    "polynomial", "h3", "take", "reveal", "signing_share", "buffer", "own_share", "open_own",
    "open_public", "open_share", "unseal", "coefficients", "_coefficients", "host_seed", "_seed",
}  # fmt: skip
DECLASSIFY = {
    ("round2.py", "sign"): "a signature share is published",
    ("group.py", "_self_test"): "known answers, not secrets",
    ("dkg.py", "prove"): "the response of a proof is published",
}


def names_in(node: ast.AST) -> set[str]:
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def annotated_secret(node: ast.arg) -> bool:
    return node.annotation is not None and "Secret" in names_in(node.annotation)


class Taint(ast.NodeVisitor):
    """Finds tainted values that enter a variable-time call, one function at a time."""

    def __init__(self, file: str) -> None:
        self.file, self.found = file, list[str]()

    def visit_FunctionDef(self, function: ast.FunctionDef) -> None:
        arguments = [*function.args.args, *function.args.kwonlyargs]
        tainted = {argument.arg for argument in arguments if annotated_secret(argument)}
        for _ in range(4):  # assignments may come in any order within loops
            for node in ast.walk(function):
                tainted |= self.assigned(node, tainted)
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                self.check(function, node, tainted)

    def assigned(self, node: ast.AST, tainted: set[str]) -> set[str]:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if self.is_tainted(node.value, tainted):
                return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        if isinstance(node, ast.For | ast.comprehension) and self.is_tainted(node.iter, tainted):
            return {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
        return set()

    def is_tainted(self, value: ast.AST, tainted: set[str]) -> bool:
        """A point made from a secret is public, so `base_point` ends the taint."""
        if isinstance(value, ast.Call):
            called = value.func.attr if isinstance(value.func, ast.Attribute) else ""
            called = value.func.id if isinstance(value.func, ast.Name) else called
            public = {"base_point", "share_fits", "len", "isinstance", "combine", "Element"}
            if called in public or called == "decode_scalar":
                return False
            if called in SOURCES:
                return True
            return any(self.is_tainted(a, tainted) for a in value.args)
        if isinstance(value, ast.Attribute):
            return value.attr in SOURCES
        if isinstance(value, ast.Name):
            return value.id in tainted or value.id == "coefficients"
        if isinstance(value, ast.Compare | ast.Constant):
            return False
        return any(self.is_tainted(child, tainted) for child in ast.iter_child_nodes(value))

    def check(self, function: ast.FunctionDef, call: ast.Call, tainted: set[str]) -> None:
        called = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        called = call.func.id if isinstance(call.func, ast.Name) else called
        place = f"{self.file}:{call.lineno} in {function.name}: {called}"
        if called in RAW and (self.file, function.name) != ("group.py", "multiply"):
            self.found.append(f"{place} outside Group.multiply")
        secret = any(self.is_tainted(a, tainted) for a in call.args)
        if called in VARIABLE and secret and (self.file, function.name) not in DECLASSIFY:
            self.found.append(f"{place} of a secret")


def violations(file: str, source: str) -> list[str]:
    visitor = Taint(file)
    visitor.visit(ast.parse(source))
    return visitor.found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_no_secret_reaches_variable_time(path: Path) -> None:
    assert violations(path.name, path.read_text()) == []


def test_coincurve_is_imported_by_the_group_alone() -> None:
    for path in FOLDER.glob("*.py"):
        if path.name != "group.py":
            assert "coincurve" not in path.read_text().replace("coincurve_", ""), path


PLANTED = {
    "a point multiplied by a signing share": """
def leak(self, share, point):
    return self.group.multiply(point, share.signing_share)
""",
    "through an integer": """
def leak(group, nonce: Secret, point):
    number = int.from_bytes(nonce.reveal(), "big")
    return group.multiply(point, number)
""",
    "through a tuple and a loop": """
def leak(group, coefficients, point):
    total = []
    for index, coefficient in enumerate(coefficients):
        total.append(group.multiply(point, coefficient))
""",
    "of a fresh secret": """
def leak(group, random_bytes, point):
    made = random_secret(group, random_bytes)
    copy = made
    return group.base_public(copy)
""",
    "straight to the C library": """
def leak(point, public):
    lib.secp256k1_ec_pubkey_tweak_mul(ctx, point, public)
""",
    "nonces that were taken": """
def leak(group, nonces, point):
    hiding, binding = nonces.take()
    return group.multiply(point, hiding)
""",
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_violation_is_found(name: str) -> None:
    assert violations("planted.py", PLANTED[name]) != []


def test_a_violation_planted_in_the_real_signing_code_is_found() -> None:
    source = (FOLDER / "aggregate.py").read_text()
    planted = source.replace(
        "group.multiply(key, factor)", "group.multiply(key, session_share.signing_share)"
    )
    assert planted != source
    assert violations("aggregate.py", planted) != []
