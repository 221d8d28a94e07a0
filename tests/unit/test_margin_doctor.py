"""`keeper doctor`: every check has a grade on each side of its line, and a remedy."""

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper import config, home, keys
from keeper.cli import doctor as cli
from keeper.contracts import encode_call
from keeper.errors import LocalError, RemoteFault
from keeper.margin.breaker import Action
from keeper.network import ChainSpec, NetworkSpec
from keeper.node.doctor import chains, machine
from keeper.node.doctor import home as homes
from keeper.node.doctor.chains import Sample
from keeper.node.doctor.finding import Finding, Grade, fit
from keeper.parameters import Parameters
from keeper.reasons import Reason
from keeper.units import ChainId
from keeper.venue.bonds import BondStatus
from p2p.frost.keyfile import QUICK

A = ChainId(31501)
runner = CliRunner()
FINE, ODD, BAD = Grade.FINE, Grade.ODD, Grade.BAD


def sample(**changes: Any) -> Sample:
    return Sample(**({"url": "http://a", "took_s": 0.1, "chain": A, "number": 9} | changes))


def together(*numbers: int, hashes: Sequence[str] = ("0xaa", "0xaa")) -> Finding:
    samples = [sample(url=f"http://{i}", number=number) for i, number in enumerate(numbers)]
    return chains.agreement(A, {f"http://{i}": h for i, h in enumerate(hashes)}, samples)


def gas(balance: int, live: bool = True) -> Finding:
    return chains.gas(A, "urgent", bytes(20), balance, 10, live)


JUDGED: list[tuple[str, Grade, Callable[[], Finding]]] = [
    ("keccak", FINE, lambda: machine.keccak("tiny-keccak")),
    ("keccak", ODD, lambda: machine.keccak("pycryptodome")),
    ("engines", FINE, lambda: machine.engines(["numba", "numpy", "python"])),
    ("engines", ODD, lambda: machine.engines(["numpy", "python"])),
    ("disk_sync", FINE, lambda: machine.disk_sync([0.001, 0.02, 0.5])),
    ("disk_sync", ODD, lambda: machine.disk_sync([0.021] * 3)),
    ("disk_sync", BAD, lambda: machine.disk_sync([0.21] * 3)),
    ("disk_space", FINE, lambda: machine.disk_space(2**40)),
    ("disk_space", ODD, lambda: machine.disk_space(2**30)),
    ("disk_space", BAD, lambda: machine.disk_space(2**20)),
    ("clock", FINE, lambda: machine.clock(1_000.0, [990, 1_002])),
    ("clock", ODD, lambda: machine.clock(1_000.0, [800, 870])),
    ("clock", BAD, lambda: machine.clock(1_000.0, [990, 1_003])),
    ("clock", ODD, lambda: machine.clock(1_000.0, [])),
    ("chain", FINE, lambda: chains.endpoints(A, [sample()])[0]),
    ("chain", ODD, lambda: chains.endpoints(A, [sample(took_s=1.1)])[0]),
    ("chain", BAD, lambda: chains.endpoints(A, [sample(chain=1)])[0]),
    ("chain", BAD, lambda: chains.endpoints(A, [sample(why="refused")])[0]),
    ("agreement", FINE, lambda: together(9, 14)),
    ("agreement", ODD, lambda: together(9, 15)),
    ("agreement", ODD, lambda: together(9, hashes=["0xaa"])),
    ("agreement", BAD, lambda: together(9, 9, hashes=["0xaa", "0xbb"])),
    ("contracts", FINE, lambda: chains.contracts(A, {"Vault": 9})),
    ("contracts", BAD, lambda: chains.contracts(A, {"Vault": 9, "Perps": 0})),
    ("breaker", FINE, lambda: chains.breakers(A, {Action.OPEN: 0}, paused=False)),
    ("breaker", ODD, lambda: chains.breakers(A, {Action.OPEN: 2}, paused=False)),
    ("breaker", ODD, lambda: chains.breakers(A, {}, paused=True)),
    ("gas", FINE, lambda: gas(100_000_000)),
    ("gas", ODD, lambda: gas(99_999_999)),
    ("gas", BAD, lambda: gas(4_999_999)),
    ("gas", ODD, lambda: gas(0, live=False)),
    ("bond", FINE, lambda: chains.bond(BondStatus.ACTIVE, 10, 10)),
    ("bond", ODD, lambda: chains.bond(BondStatus.ACTIVE, 9, 10)),
    ("bond", ODD, lambda: chains.bond(BondStatus.NONE, 0, 10)),
    ("bond", ODD, lambda: chains.bond(BondStatus.LEAVING, 10, 10)),
    ("bond", ODD, lambda: chains.bond(BondStatus.JAILED, 10, 10)),
    ("bond", BAD, lambda: chains.bond(BondStatus.TOMBSTONED, 0, 10)),
]


@pytest.mark.parametrize(("check", "grade", "judge"), JUDGED)
def test_a_check_grades_what_it_measured(
    check: str, grade: Grade, judge: Callable[[], Finding]
) -> None:
    found = judge()
    assert check in found.check
    assert found.grade is grade
    assert found.says
    assert bool(found.remedy) == (grade is not FINE)
    assert fit([found]) == (grade is not BAD)


def test_an_address_is_shown_without_its_secrets() -> None:
    assert chains.shown("https://user:pass@rpc.example/v3/key") == "https://rpc.example"
    assert chains.shown("/run/geth.ipc") == "/run/geth.ipc"
    (found,) = chains.endpoints(A, [sample(url="https://user:pass@rpc.example/v3/key", why="no")])
    assert "pass" not in found.says
    assert "key" not in found.says


def test_waiting_transactions_are_odd_only_while_no_node_sends_them() -> None:
    assert chains.nonces(A, "urgent", 5, 5, running=False) is None
    assert chains.nonces(A, "urgent", 5, 7, running=True) is None
    found = chains.nonces(A, "urgent", 5, 7, running=False)
    assert found is not None
    assert (found.grade, found.says[:1]) == (ODD, "2")


# --- a home ---------------------------------------------------------------------------------------


@pytest.fixture
def spec() -> NetworkSpec:
    contracts = tuple((name, name.encode().rjust(20, b"\1")) for name in ("Bonds", "Breaker"))
    chain = ChainSpec(A, contracts)
    return NetworkSpec(b"\7" * 32, 0, 500, A, (chain,), Parameters.devnet((A,)).encode())


@pytest.fixture
def folder(tmp_path: Path, spec: NetworkSpec) -> Path:
    file, password = tmp_path / "network.json", tmp_path / "password"
    file.write_text(json.dumps(spec.to_json()))
    password.write_text("secret\n")
    password.chmod(0o600)
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    made = tmp_path / "home"
    home.make(
        made,
        file,
        {A: ("http://127.0.0.1:1",)},
        "secret",
        mode="off",
        p2p_port=ports[0],
        http_port=ports[1],
        password_file=password,
        work=QUICK,
    )
    return made


def checked(folder: Path, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = runner.invoke(cli.app, ["--home", str(folder), "--json", *options])
    rows = {}
    for row in json.loads(done.output):
        known = rows.get(row["check"])
        if known is None or known["grade"] == "fine" or row["grade"] == "bad":
            rows[row["check"]] = row
    assert all(row["remedy"] for row in rows.values() if row["grade"] != "fine")
    return done.exit_code, rows


def test_a_sound_home_passes(folder: Path) -> None:
    code, rows = checked(folder, "--offline")
    assert code == 0
    assert {row["check"] for row in rows.values() if row["grade"] == "bad"} == set()
    names = {"keccak", "disk_sync", "configuration", "network", "key_files", "keys", "database"}
    assert names | {"password", "policies", "p2p_port", "http_port"} <= rows.keys()
    assert not (folder / ".doctor").exists()
    assert not (folder / "keeper.db").exists()
    told = runner.invoke(cli.app, ["--home", str(folder), "--offline"])
    assert "0 bad" in told.output


def _open_key(folder: Path) -> None:
    (folder / "keys" / "operator.key").chmod(0o644)


def _open_folder(folder: Path) -> None:
    (folder / "keys").chmod(0o777)


def _open_password(folder: Path) -> None:
    (folder.parent / "password").chmod(0o640)


def _wrong_password(folder: Path) -> None:
    (folder.parent / "password").write_text("other\n")


def _lost_key(folder: Path) -> None:
    (folder / "keys" / "identity.key").unlink()


def _lost_votes(folder: Path) -> None:
    (folder / "keys" / "epoch-1.voted").write_text("")


def _damaged_store(folder: Path) -> None:
    (folder / "keeper.db").write_bytes(b"no database" * 100)


def _no_policy(folder: Path) -> None:
    path = folder / "keeper.toml"
    path.write_text(path.read_text().replace('= "liquidation"', '= "absent"'))


def _bad_toml(folder: Path) -> None:
    (folder / "keeper.toml").write_text("[node]\nmood = 1\n")


def _no_toml(folder: Path) -> None:
    (folder / "keeper.toml").unlink()


def _bad_parameters(folder: Path) -> None:
    path = folder / "network.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"parameters": "0x" + b"\xc1".hex()}))


def _other_chain(folder: Path) -> None:
    path = folder / "keeper.toml"
    path.write_text(path.read_text().replace("[chains.31501]", "[chains.7]"))


FAULTS = [
    (_open_key, "key_files"),
    (_open_folder, "key_folder"),
    (_open_password, "password"),
    (_wrong_password, "keys"),
    (_lost_key, "keys"),
    (_lost_votes, "database"),
    (_damaged_store, "database"),
    (_no_policy, "policies"),
    (_bad_toml, "configuration"),
    (_no_toml, "configuration"),
    (_bad_parameters, "network"),
    (_other_chain, "network"),
]


@pytest.mark.parametrize(("spoil", "check"), FAULTS)
def test_a_fault_of_a_home_is_found(
    folder: Path, spoil: Callable[[Path], None], check: str
) -> None:
    spoil(folder)
    code, rows = checked(folder, "--offline")
    assert code == 1
    assert rows[check]["grade"] == "bad"


def test_a_port_that_is_taken_is_found(folder: Path) -> None:
    settings = config.load(folder)
    with socket.socket() as held:
        held.bind((settings.http_host, settings.http_port))
        held.listen()
        found = {one.check: one for one in homes.ports(settings, running=False)}
        assert found["http_port"].grade is BAD
        assert found["p2p_port"].grade is FINE
        found = {one.check: one for one in homes.ports(settings, running=True)}
        assert found["http_port"].grade is FINE


def test_bootstrap_needs_one_keeper_that_answers(folder: Path) -> None:
    path = folder / "keeper.toml"
    addresses = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"]
    path.write_text(path.read_text().replace("bootstrap = []", f"bootstrap = {addresses}"))
    settings = config.load(folder)

    def second(host: str, port: int) -> None:
        if port != 2:
            raise OSError("refused")

    def nobody(host: str, port: int) -> None:
        raise OSError("refused")

    assert homes.bootstrap(settings, second).grade is FINE
    assert homes.bootstrap(settings, nobody).grade is ODD


def test_what_a_running_node_says_is_judged() -> None:
    good: dict[str, Any] = {"health": {"reasons": []}, "peers": [], "policy_faults": {}}
    assert [one.grade for one in cli.running(good)] == [FINE]
    sick = good | {"health": {"reasons": [["peers", "1 member linked"]]}}
    assert [one.grade for one in cli.running(sick | {"policy_faults": {"slow": 2}})] == [ODD, ODD]
    for other in ({}, [], "hello", {"health": 1}):
        assert [one.grade for one in cli.running(other)] == [BAD]


# --- chains ---------------------------------------------------------------------------------------


class Endpoint:
    """One endpoint's answers; a test changes them."""

    def __init__(self, spec: NetworkSpec, mine: keys.Keys) -> None:
        self.answers: dict[str, Any] = {
            "eth_chainId": hex(A),
            "eth_getBlockByNumber": {"number": "0x20", "timestamp": "0x64", "hash": "0xaa"},
            "eth_getCode": "0x6001",
            "eth_gasPrice": "0xa",
            "eth_getBalance": hex(10**18),
            "eth_getTransactionCount": "0x5",
        }
        word = lambda *values: "0x" + b"".join(v.to_bytes(32, "big") for v in values).hex()  # noqa: E731  a table of one-liners
        self.calls = {
            encode_call("Bonds", "stake", mine.address)[:4]: word(10**19, 0, 0, 0, 1),
            encode_call("Bonds", "parameters")[:4]: word(10**18, 1, 1, 1, 1),
            encode_call("Breaker", "level", bytes(32), 0)[:4]: word(0),
            encode_call("Breaker", "paused", bytes(32))[:4]: word(0),
        }

    def answer(self, method: str, params: Sequence[Any]) -> Any:
        if method == "eth_call":
            return self.calls[bytes.fromhex(params[0]["data"][2:10])]
        found = self.answers[method]
        if isinstance(found, Exception):
            raise found
        return found


async def examined(
    folder: Path, spec: NetworkSpec, change: Callable[[Endpoint], None]
) -> dict[str, Finding]:
    settings = config.load(folder)
    mine = keys.load(settings.keys, settings.password())
    endpoint = Endpoint(spec, mine)
    change(endpoint)

    async def ask(url: str, method: str, params: Sequence[Any]) -> Any:
        return endpoint.answer(method, params)

    seen = await chains.examine(settings, spec, mine, False, ask)
    worst: dict[str, Finding] = {}
    for one in seen.found:
        known = worst.get(one.check)
        if known is None or list(Grade).index(one.grade) > list(Grade).index(known.grade):
            worst[one.check] = one
    return worst


async def test_a_sound_chain_passes(folder: Path, spec: NetworkSpec) -> None:
    found = await examined(folder, spec, lambda _: None)
    grades = {check.removeprefix(f"chain_{A}"): one.grade for check, one in found.items()}
    fine = dict.fromkeys(("", "_contracts", "_breaker", "_gas", "bond"), FINE)
    assert grades == fine | {"_agreement": ODD}  # one endpoint alone


CHANGES: list[tuple[str, Any, str, Grade]] = [
    ("eth_chainId", "0x1", f"chain_{A}", BAD),
    ("eth_chainId", RemoteFault("x", Reason.UNREACHABLE), f"chain_{A}", BAD),
    ("eth_chainId", [], f"chain_{A}", BAD),
    ("eth_getBlockByNumber", None, f"chain_{A}", BAD),
    ("eth_getBlockByNumber", {"number": 7}, f"chain_{A}", BAD),
    ("eth_getCode", "0x", f"chain_{A}_contracts", BAD),
    ("eth_gasPrice", {}, f"chain_{A}", BAD),
    ("eth_getBalance", "0x0", f"chain_{A}_gas", ODD),
    ("eth_getBalance", LocalError("broken"), f"chain_{A}", BAD),
]


@pytest.mark.parametrize(("method", "answer", "check", "grade"), CHANGES)
async def test_a_chains_fault_is_found_and_hostile_answers_are_survived(
    folder: Path, spec: NetworkSpec, method: str, answer: Any, check: str, grade: Grade
) -> None:
    found = await examined(folder, spec, lambda one: one.answers.update({method: answer}))
    assert found[check].grade is grade


async def test_a_contract_that_answers_garbage_is_no_crash(folder: Path, spec: NetworkSpec) -> None:
    def garbage(one: Endpoint) -> None:
        one.calls = dict.fromkeys(one.calls, "0x1234")

    found = await examined(folder, spec, garbage)
    assert found[f"chain_{A}"].grade is BAD


def test_unreachable_endpoints_make_the_verb_fail(folder: Path) -> None:
    code, rows = checked(folder)
    assert code == 1
    assert rows[f"chain_{A}"]["grade"] == "bad"
    assert rows["clock"]["grade"] == "odd"
