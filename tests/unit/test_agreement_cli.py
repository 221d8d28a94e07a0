"""`keeper evidence`, `explain` and `replay` over what a keeper of a small committee kept."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from keeper import config
from keeper.cli import evidence, explain, replay
from keeper.cli.evidence import from_json, slash_call, to_json
from keeper.contracts import encode_call
from keeper.errors import ConfigError
from keeper.hashing import keccak
from keeper.store import Store
from keeper.units import ChainId
from p2p.agreement.chain import Start
from p2p.agreement.effects import Noted, Persist, Timing
from p2p.agreement.evidence import Evidence
from p2p.agreement.journal import Journal
from p2p.agreement.log import MemoryLog, Opened, StoreLog
from p2p.agreement.record import RecordedAgreement, Recorder
from p2p.agreement.signing import EcdsaSigner, sign_observation, vote_hash
from p2p.types import NO_DIGEST, Certificate, Committee, Kind, Member, Vote
from tests.support.agreement_cluster import ToyApplication

SIGNERS = tuple(EcdsaSigner(keccak(b"cli %d" % i)) for i in range(4))
COMMITTEE = Committee(
    keccak(b"network"),
    1,
    tuple(Member(s.address, b"peer %d" % i) for i, s in enumerate(SIGNERS)),
    keccak(b"parameters"),
)
BLOCK = keccak(b"block")


def vote(kind: Kind, signer: int, view: int = 7) -> Vote:
    digest = NO_DIGEST if kind is Kind.NULLIFY else BLOCK
    signature = SIGNERS[signer].sign(vote_hash(COMMITTEE, kind, view, digest))
    return Vote(1, kind, view, digest, signer, signature)


GOOD = Evidence(COMMITTEE.config, vote(Kind.NULLIFY, 2), vote(Kind.FINALIZE, 2))
FORGED = Evidence(COMMITTEE.config, vote(Kind.NULLIFY, 2), vote(Kind.NOTARIZE, 2))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    text = config.render(
        mode="live",
        password_file="",
        p2p_port=4001,
        bootstrap=(),
        http_port=9640,
        endpoints={ChainId(7): ("http://127.0.0.1:1",)},
    )
    (tmp_path / "keeper.toml").write_text(text)
    store = Store(config.load(tmp_path).store_file)
    journal, log = Journal(store), StoreLog(store)
    journal.remember(COMMITTEE)
    skipped = Certificate(1, Kind.NULLIFY, 8, NO_DIGEST, 0b1011, (bytes(64),) * 3)
    log.write((GOOD, FORGED, skipped))
    for at, note in (
        (10.0, Noted(8, "entered", (1,))),
        (10.2, Noted(8, "proposal", (1,))),
        (10.3, Noted(8, "wrong: wrong_prices", (1,), "ETH-USD")),
        (10.9, Noted(8, "nullified", (0, 1, 3))),
        (11.0, Noted(9, "entered", (2,))),
    ):
        journal.note(1, note, at)
    journal.flush()
    store.close()
    return tmp_path


def run(app: typer.Typer, *arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_evidence_is_listed_and_verified(home: Path, tmp_path: Path) -> None:
    code, text = run(evidence.app, "list", "--home", home)
    assert code == 0
    assert "nullify" in text
    listed = json.loads(run(evidence.app, "list", "--home", home, "--json")[1])
    assert [one["member"] for one in listed] == [2, 2]
    code, text = run(evidence.app, "verify", "1", "--home", home, "--json")
    shown = json.loads(text)
    assert (code, shown["holds"]) == (0, True)
    assert shown["address"] == "0x" + SIGNERS[2].address.hex()
    code, text = run(evidence.app, "verify", "2", "--home", home)
    assert code == 1, "notarize and nullify are no conflict"
    file = tmp_path / "pair.json"
    file.write_text(json.dumps(listed[0]))
    assert run(evidence.app, "verify", "--file", file, "--home", home)[0] == 0


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"epoch": "x"}', "null"])
def test_a_file_that_is_no_evidence_is_refused(home: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "pair.json"
    file.write_text(text)
    with pytest.raises(ConfigError):
        run(evidence.app, "verify", "--file", file, "--home", home)


def test_a_pair_that_does_not_exist_or_hold_is_not_submitted(home: Path) -> None:
    with pytest.raises(ConfigError, match="no pair 3"):
        run(evidence.app, "submit", "3", "--home", home)
    with pytest.raises(ConfigError, match="does not hold"):
        run(evidence.app, "submit", "2", "--home", home)


def test_evidence_goes_to_json_and_to_the_contract() -> None:
    assert from_json(to_json(GOOD), "here") == GOOD
    a, b = GOOD.first.signature, GOOD.second.signature
    words = ((2, NO_DIGEST, (a[:32], a[32:])), (3, BLOCK, (b[:32], b[32:])))
    expected = encode_call("Bonds", "slash_conflict", 1, COMMITTEE.config, 7, *words)
    assert slash_call(GOOD) == expected


def test_a_skipped_view_is_explained(home: Path) -> None:
    code, text = run(explain.app, "8", "--home", home)
    assert code == 0
    assert "skipped: the leader's block is wrong: wrong_prices ETH-USD" in " ".join(text.split())
    value = json.loads(run(explain.app, "8", "--home", home, "--json")[1])
    assert value["signers"] == {"nullify": [0, 1, 3]}
    assert value["did_not_sign"] == [2]
    assert len(value["events"]) == 4
    newest = json.loads(run(explain.app, "--home", home, "--json")[1])
    assert (newest["view"], newest["verdict"]) == (9, "open: no certificate reached this keeper")
    with pytest.raises(ConfigError, match="knows nothing"):
        run(explain.app, "99", "--home", home)


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        (("leader silent",), "its leader was silent while a quorum spoke"),
        (("equivocation",), "its leader or a voter said two things"),
        (("proposal", "not yet"), "too many keepers lacked data to judge the block in time"),
        (("proposal",), "a block arrived, but its votes did not reach a quorum in time"),
        (("deadline",), "no valid proposal arrived before the deadline"),
    ],
)
def test_why_a_view_was_skipped(home: Path, events: tuple[str, ...], verdict: str) -> None:
    store = Store(config.load(home).store_file)
    journal = Journal(store)
    StoreLog(store).write((Certificate(1, Kind.NULLIFY, 5, NO_DIGEST, 0b111, (bytes(64),) * 3),))
    for event in events:
        journal.note(1, Noted(5, event, (1,)), 1.0)
    journal.flush()
    store.close()
    value = json.loads(run(explain.app, "5", "--home", home, "--json")[1])
    assert value["verdict"] == f"skipped: {verdict}"


def fly(path: Path) -> None:
    """Record one keeper of a committee of one, with real signatures."""
    committee = Committee(COMMITTEE.network, 1, COMMITTEE.members[:1], COMMITTEE.parameters_digest)
    timing = Timing(0.0, tick_s=1.0)
    log = MemoryLog()
    log.write((Opened(committee.config),))
    application = ToyApplication(committee.config)
    with path.open("wb") as file:
        recorder = Recorder(file, committee, 0, timing)
        core = RecordedAgreement(
            committee, 0, SIGNERS[0], application, log, timing, Start(), recorder
        )
        steps: list[Callable[[float], object]] = [core.start]
        for tick in range(1, 6):
            roots = (keccak(b"%d" % tick),) * 3
            seen = sign_observation(committee, SIGNERS[0], tick, roots, b"")
            steps.append(lambda now, seen=seen: core.observe(seen, now))  # type: ignore[misc]  # bound now
        for at, step in enumerate(steps):
            effects = step(float(at))
            assert isinstance(effects, tuple)
            for effect in effects:
                if isinstance(effect, Persist):
                    log.write(effect.records)


def test_a_record_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "flight"
    fly(path)
    code, text = run(replay.app, path, "--json")
    value = json.loads(text)
    assert (code, value["identical"], value["final_blocks"]) == (0, True, 5)
    code, text = run(replay.app, path, "--view", "2")
    assert code == 0
    assert "final" in text


def test_a_record_of_something_else_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flight"
    fly(path)
    monkeypatch.setattr("p2p.agreement.core._DONE", dict.fromkeys(Kind, "other"))
    code, _ = run(replay.app, path, "--json")
    assert code == 1
    with pytest.raises(ConfigError, match="cannot read"):
        run(replay.app, tmp_path / "none")
