"""Two real chains and n keepers with real keys: bids, observations, seals and transactions.

    hub 31501    Vault, Bonds, Awards        collateral and bonds
    venue 31502  Vault, Awards, Perps        positions

    logs ─▶ tables ─▶ n signed observations ─▶ propose, validate by another ─▶ FROST seal ─▶ chains
    bids: signed commitments and reveals, heard by every keeper

Gossip and votes are left out: every keeper hears everything, and a view is final once a second
keeper has derived the same bytes. Blocks come one a transaction, and are final at once.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from keeper.clear.conservation import imbalances
from keeper.compete.bidder import Bidder, Reserve, Wish
from keeper.compete.hearing import COMMIT, REVEAL, Hearing
from keeper.compete.state import AwardState, decode
from keeper.contracts import decode_result, encode_call
from keeper.devnet.chains import Anvil
from keeper.devnet.deploy import Market, account_id, deploy_chain, install_committee
from keeper.devnet.wallet import Send, Sent, Wallet
from keeper.hashing import keccak
from keeper.merkle import merkle_proof
from keeper.network import ChainSpec, NetworkSpec
from keeper.node.member import rules
from keeper.observe import observation
from keeper.observe.observation import ObservationBody, SeenHead, SeenPrice
from keeper.observe.table import EMPTY, Log, Table
from keeper.parameters import Parameters
from keeper.snapshot.application import SnapshotApplication
from keeper.snapshot.decisions import CutBlock, Decision
from keeper.snapshot.derive import Setting, Snapshot
from keeper.units import ChainId, symbol
from keeper.venue.calls import SealTuple, bring, execute
from keeper.venue.port import Call
from p2p.agreement.application import Valid
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.frost.aggregate import Signature, aggregate
from p2p.frost.keys import KeyShare
from p2p.frost.round1 import generate_nonces, sorted_commitments
from p2p.frost.round2 import Session, SigningPackage, sign
from p2p.frost.signer import seal_digest
from p2p.frost.suite import Identifier
from p2p.types import Committee, Member, SignedObservation
from tests.support.anvil import chain_of
from tests.support.frost import deal, seeded

HUB, VENUE = ChainId(31501), ChainId(31502)
E8, USD, ETHER = 10**8, 10**6, 10**18
ETH, USDC = symbol("ETH-USD"), symbol("USDC")
NETWORK_ID = keccak(b"two chains")
BOND = 100 * ETHER
PLENTY = Reserve(BOND, 0)
COINS = hex(1_000 * ETHER)


@dataclass
class Keeper:
    """One keeper: its operator key, what it heard, what it bids."""

    signer: EcdsaSigner
    secret: bytes
    share: KeyShare
    hearing: Hearing
    bidder: Bidder

    @property
    def address(self) -> bytes:
        """Return the operator address."""
        return self.signer.address


@dataclass
class Index:
    """What a keeper knows of one chain: its blocks and the table after each."""

    anvil: Anvil
    spec: ChainSpec
    table: Table = EMPTY
    next_block: int = 0
    heads: dict[tuple[int, bytes], Table] = field(default_factory=dict)

    async def follow(self) -> SeenHead:
        """Read the logs up to the head and return it."""
        block = await self.anvil.rpc.call("eth_getBlockByNumber", ["latest", False])
        number, hashed = int(block["number"], 16), bytes.fromhex(block["hash"][2:])
        first = self.next_block or self.spec.start_block
        if first <= number:
            query = {
                "address": ["0x" + at.hex() for _, at in self.spec.contracts],
                "fromBlock": hex(first),
                "toBlock": hex(number),
            }
            rows = await self.anvil.rpc.call("eth_getLogs", [query])
            self.table = self.table.apply(_log(row) for row in rows)
            self.next_block = number + 1
        self.heads[number, hashed] = self.table
        stamp = int(block["timestamp"], 16)
        return SeenHead(self.spec.id, number, hashed, self.table.root, stamp)


def _log(row: Mapping[str, Any]) -> Log:
    topics = tuple(bytes.fromhex(topic[2:]) for topic in row["topics"])
    return Log(bytes.fromhex(row["address"][2:]), topics, bytes.fromhex(row["data"][2:]))


class TwoChains:
    """See the module; `two_chains` opens one."""

    def __init__(
        self, indexes: Mapping[ChainId, Index], network: NetworkSpec, parameters: Parameters
    ) -> None:
        self.indexes, self.network, self.parameters = indexes, network, parameters
        self.prices = {ETH: 2_000 * E8, USDC: E8}
        self.keepers: list[Keeper] = []
        self.sent: list[Sent] = []
        self.view_number = self.tick = 0
        self.lies: dict[bytes, Callable[[SeenHead], SeenHead]] = {}
        self.observed: list[SignedObservation] = []
        self.sealed: dict[bytes, tuple[Decision, SealTuple, tuple[bytes, ...]]] = {}

    def at(self, ref: CutBlock) -> Table | None:
        """Return the table after a block, for the application."""
        return self.indexes[ref.chain].heads.get((ref.number, ref.hash))

    def contract(self, chain: ChainId, name: str) -> bytes:
        """Return a contract's address."""
        at = self.network.chain(chain).contract(name)
        assert at is not None
        return at

    def token(self, chain: ChainId) -> bytes:
        """Return the dollar of a chain."""
        return self.network.chain(chain).tokens[0].address

    # --- keepers

    async def found(self, count: int) -> None:
        """Let keepers join with bonds, and install them as the first committee."""
        faults = (count - 1) // 3
        quorum = (count + faults) // 2 + 1
        group, shares = deal(quorum, count, seed=("two chains", count))
        secrets = [keccak(b"keeper %d" % i) for i in range(count)]
        signers = sorted(
            ((EcdsaSigner(secret), secret) for secret in secrets), key=lambda one: one[0].address
        )
        members = tuple(Member(one.address, one.address) for one, _ in signers)
        self.committee = Committee(self.network.id, 1, members, self.network.digest())
        config = self.committee.config
        for number, (signer, secret) in enumerate(signers):
            for index in self.indexes.values():
                funds = ["0x" + signer.address.hex(), COINS]
                await index.anvil.rpc.call("anvil_setBalance", funds)
            hearing = Hearing(self.network.id, 1, config, self._stake)
            bidder = Bidder(self.network.id, 1, config, signer.address, self.parameters)
            share = shares[Identifier(number + 1)]
            self.keepers.append(Keeper(signer, secret, share, hearing, bidder))
            join = encode_call("Bonds", "join", keccak(signer.address)[:20], b"peer")
            await self.send(HUB, secret, Send(self.contract(HUB, "Bonds"), join, BOND))
        await install_committee(
            {chain: self.wallet(chain, self.deployer) for chain in self.indexes},
            self.network.chains,
            epoch=1,
            group_key=int.from_bytes(group.x_only, "big"),
            config=config,
            members=[member.address for member in members],
        )
        self.setting = Setting(
            *(self.network, self.parameters, self.network.digest(), 1, config),
            *(tuple(m.address for m in members), faults, quorum, rules()),
        )
        self.applications = [SnapshotApplication(self.setting, self) for _ in range(2)]
        self.digest = config

    def _stake(self, bidder: bytes) -> int:
        return BOND * (self.committee.index_of(bidder) is not None)

    @property
    def deployer(self) -> bytes:
        """Return the deployer's key."""
        return self.indexes[HUB].anvil.key(0)

    def keeper(self, address: bytes) -> Keeper:
        """Return the keeper with an address."""
        return next(one for one in self.keepers if one.address == address)

    # --- transactions

    def wallet(self, chain: ChainId, secret: bytes) -> Wallet:
        """Return a key's wallet on a chain."""
        return Wallet(self.indexes[chain].anvil.rpc, chain, secret)

    async def send(self, chain: ChainId, secret: bytes, *sends: Send) -> list[Sent]:
        """Send transactions and wait until they are mined."""
        return await self.wallet(chain, secret).send(*sends)

    async def transact(
        self, chain: ChainId, name: str, function: str, *args: object, secret: bytes
    ) -> Sent:
        """Call a contract of the network."""
        data = encode_call(name, function, *args)
        (sent,) = await self.send(chain, secret, Send(self.contract(chain, name), data))
        return sent

    async def ask(self, chain: ChainId, name: str, function: str, *args: object) -> Any:
        """Return what a view function answers."""
        call = {
            "to": "0x" + self.contract(chain, name).hex(),
            "data": "0x" + encode_call(name, function, *args).hex(),
        }
        raw = await self.indexes[chain].anvil.rpc.call("eth_call", [call, "latest"])
        (value,) = decode_result(name, function, bytes.fromhex(raw[2:]))
        return value

    async def deposit(self, chain: ChainId, account: bytes, amount: int) -> None:
        """Put new dollars into an account."""
        token, vault = self.token(chain), self.contract(chain, "Vault")
        me = self.wallet(chain, self.deployer).address
        await self.send(
            chain,
            self.deployer,
            Send(token, encode_call("DevToken", "mint", me, amount)),
            Send(token, encode_call("DevToken", "approve", vault, amount)),
            Send(vault, encode_call("Vault", "deposit_for", account, token, amount)),
        )

    async def set_price(self, dollars: int) -> None:
        """Move the feed, and what keepers see of it."""
        self.prices[ETH] = dollars * E8
        feed = next(f.address for f in self.network.chain(VENUE).feeds if f.market == ETH)
        data = encode_call("DevFeed", "set_answer", dollars * E8)
        await self.send(VENUE, self.deployer, Send(feed, data))

    async def mine_to(self, chain: ChainId, block: int) -> None:
        """Mine until the next transaction would be in a block."""
        rpc = self.indexes[chain].anvil.rpc
        head = int(await rpc.call("eth_blockNumber"), 16)
        if block - 1 > head:
            await rpc.call("anvil_mine", [hex(block - 1 - head)])

    # --- views

    async def view(self) -> Snapshot:
        """Decide, check and seal one view on the heads of both chains."""
        heads = tuple([await self.indexes[chain].follow() for chain in sorted(self.indexes)])
        stamp = max(head.timestamp for head in heads)
        now = (stamp * 1000 - self.network.genesis_time_ms) // self.network.tick_ms
        self.tick, self.view_number = max(self.tick, now) + 1, self.view_number + 1
        observed = [self._observe(keeper, heads, stamp) for keeper in self.keepers]
        self.observed = observed
        first, second = self.applications
        place = (self.digest, self.view_number, self.tick, observed)
        payload = first.propose(*place)
        assert payload is not None
        verdict = second.validate(*place, payload)
        assert isinstance(verdict, Valid), verdict
        digest = keccak(payload)
        for application in self.applications:
            application.adopt(
                *(digest, self.digest, self.view_number, self.tick, observed), payload
            )
        self.digest = digest
        self.snapshot = first.states[digest]
        assert verdict.root == self.snapshot.root
        self._seal()
        await self._check_sums()
        return self.snapshot

    def _observe(
        self, keeper: Keeper, heads: tuple[SeenHead, ...], stamp: int
    ) -> SignedObservation:
        if self.view_number > 1:
            keeper.hearing.advance(self.view_number - 1, self.competition)
        prices = tuple(SeenPrice(m, price, stamp) for m, price in sorted(self.prices.items()))
        lie = self.lies.get(keeper.address)
        seen = heads if lie is None else tuple(lie(head) for head in heads)
        body = ObservationBody(self.tick, seen, prices, *keeper.hearing.seen())
        return sign_observation(
            self.committee, keeper.signer, self.tick, body.roots(), observation.encode(body)
        )

    def _seal(self) -> None:
        """Sign the root as a quorum of the committee, where it decides something."""
        decisions, root = self.snapshot.decisions, self.snapshot.root
        if not decisions:
            return
        digest = seal_digest(self.network.id, 1, self.view_number, root)
        signers = self.keepers[-self.setting.quorum :]
        nonces = [
            generate_nonces(one.share, seeded((self.view_number, one.address))) for one in signers
        ]
        package = SigningPackage(digest, sorted_commitments([n.commitments for n in nonces]))
        session = Session(signers[0].share.group, package)
        made = {
            one.share.identifier: sign(session, one.share, nonce)
            for one, nonce in zip(signers, nonces, strict=True)
        }
        signature = aggregate(session, made)
        assert isinstance(signature, Signature)
        seal = (1, self.view_number, root, *signature.evm())
        leaves = self.snapshot.leaves(self.setting)
        for at, decision in enumerate(decisions, 1):
            self.sealed[decision.leaf] = (decision, seal, merkle_proof(leaves, at))

    async def _check_sums(self) -> None:
        """Compare the accounts of this view with what the tokens themselves say."""
        held = {}
        for chain, index in self.indexes.items():
            call = {
                "to": "0x" + self.token(chain).hex(),
                "data": "0x"
                + encode_call("DevToken", "balanceOf", self.contract(chain, "Vault")).hex(),
            }
            raw = await index.anvil.rpc.call("eth_call", [call, "latest"])
            held[chain, self.token(chain)] = int(raw, 16)
        tables = {chain: index.table for chain, index in self.indexes.items()}
        assert imbalances(self.network, tables, self.snapshot.book.rules, held) == ()

    def only(self, kind: str) -> Decision:
        """Return the one decision of a kind in this view."""
        (found,) = [one for one in self.snapshot.decisions if one.kind == kind]
        return found

    @property
    def competition(self) -> AwardState:
        """Return the competition's state."""
        return decode(self.snapshot.book.rules["award"])

    # --- bids and decisions

    def _gossip(self, frame: bytes) -> None:
        for keeper in self.keepers:
            assert keeper.hearing.take(frame) is None
        if frame[:1] == REVEAL:
            for application in self.applications:
                application.offer(frame[1:])

    async def auction(self) -> Decision:
        """Let every keeper bid on the one open task; return the award."""
        (task,) = self.competition.tasks
        step = (task.bonus - task.reserve) // (2 * len(self.keepers))
        for number, keeper in enumerate(self.keepers):
            wish = Wish(task.target.subject, task.reserve + step * number, task.value)
            commit = keeper.bidder.commit(
                self.competition.collecting,
                [wish],
                PLENTY,
                keccak(b"salt" + keeper.address),
                keeper.signer.sign,
            )
            assert commit is not None
            self._gossip(COMMIT + commit.encode())
        await self.view()
        for keeper in self.keepers:
            for body in keeper.bidder.follow(self.view_number, self.competition)[0]:
                self._gossip(REVEAL + body)
        await self.view()
        return self.only("Award")

    async def _call(self, call: Call, secret: bytes) -> Sent:
        (sent,) = await self.send(call.chain, secret, Send(call.to, call.data))
        return sent

    async def bring(self, decision: Decision) -> Sent:
        """Bring a decision as a keeper would."""
        call = bring(*self.sealed[decision.leaf])
        return await self._call(call, self.keepers[0].secret)

    async def execute(self, award: Decision, keeper: bytes) -> Sent:
        """Send the one transaction of a keeper that runs an award."""
        decision, seal, proof = self.sealed[award.leaf]
        size = decision.fields[4]
        assert isinstance(size, int)
        call = execute(decision, seal, proof, size, self.network.account(keeper))
        return await self._call(call, self.keeper(keeper).secret)

    async def settle(self) -> None:
        """Bring the transfers of this view and of those that follow, until none is left."""
        quiet = 0
        while quiet < 2 * self.parameters.clearing.netting_ticks:
            moves = [one for one in self.snapshot.decisions if one.kind == "Transfer"]
            quiet = 0 if moves else quiet + 1
            for move in moves:
                await self.bring(move)
            await self.view()


@asynccontextmanager
async def two_chains(binary: Path, keepers: int) -> AsyncIterator[TwoChains]:
    """Run both chains with everything deployed and a committee of bonded keepers."""
    parameters = Parameters.devnet([HUB, VENUE])
    async with AsyncExitStack() as stack:
        anvils = {}
        for chain in (HUB, VENUE):
            anvils[chain] = await stack.enter_async_context(chain_of(binary, chain))
        receivers = [account_id(NETWORK_ID, bytes(19) + bytes([at])) for at in range(4)]
        specs = [
            await deploy_chain(
                Wallet(anvil.rpc, chain, anvil.key(0)),
                NETWORK_ID,
                parameters,
                hub=chain == HUB,
                venue=chain == VENUE,
                markets=[Market(ETH, 2_000 * E8)],
                assets=[("USDC", E8)],
                receivers=receivers,
            )
            for chain, anvil in anvils.items()
        ]
        block = await anvils[HUB].rpc.call("eth_getBlockByNumber", ["latest", False])
        genesis = int(block["timestamp"], 16) * 1000
        network = NetworkSpec(
            NETWORK_ID, genesis, 500, HUB, tuple(specs), parameters.encode(), keepers
        )
        indexes = {spec.id: Index(anvils[spec.id], spec) for spec in specs}
        made = TwoChains(indexes, network, parameters)
        await made.found(keepers)
        with trio.fail_after(120):
            yield made
