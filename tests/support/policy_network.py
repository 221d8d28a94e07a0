"""A hub and a venue on real chains whose committees take every seal, as a drill's copies do."""

from collections.abc import Mapping

import trio

from keeper.contracts import encode_call
from keeper.devnet.chains import Anvil
from keeper.devnet.deploy import Market, account_id, deploy_chain
from keeper.devnet.wallet import Send, Wallet, broadcast
from keeper.drill.copies import constant_code
from keeper.hashing import keccak
from keeper.leaves import credit_leaf
from keeper.network import ChainSpec, NetworkSpec
from keeper.parameters import Parameters
from keeper.units import ChainId, symbol

HUB, VENUE = ChainId(31601), ChainId(31602)
NETWORK = keccak(b"drill test")
ETH, USD = symbol("ETH-USD"), 10**6
PRICE = 3_000 * 10**8


async def deploy(anvils: Mapping[ChainId, Anvil]) -> NetworkSpec:
    """Deploy a hub and a venue whose committees take every seal, as a copy's do."""
    parameters = Parameters.devnet(list(anvils))
    receivers = [account_id(NETWORK, bytes(19) + bytes([at])) for at in range(4)]
    specs = []
    for chain, anvil in anvils.items():
        spec = await deploy_chain(
            Wallet(anvil.rpc, chain, anvil.key(0)),
            NETWORK,
            parameters,
            hub=chain == HUB,
            venue=chain == VENUE,
            markets=[Market(ETH, PRICE)],
            assets=[("USDC", 10**8)],
            receivers=receivers,
        )
        committee = spec.contract("Committee")
        assert committee is not None
        await anvil.rpc.call("anvil_setCode", ["0x" + committee.hex(), constant_code(1)])
        specs.append(spec)
    block = await anvils[HUB].rpc.call("eth_getBlockByNumber", ["0x1", False])
    genesis_ms = int(block["timestamp"], 16) * 1000
    return NetworkSpec(NETWORK, genesis_ms, 500, HUB, tuple(specs), parameters.encode(), 1)


def contract(spec: ChainSpec, name: str) -> bytes:
    found = spec.contract(name)
    assert found is not None
    return found


def credit(spec: ChainSpec, account: bytes, limit: int) -> Send:
    """Return the call that grants a credit under a root of this one decision."""
    perps = contract(spec, "Perps")
    leaf = credit_leaf(
        NETWORK, 1, spec.id, perps, account=account, limit=limit, nonce=1, expiry=10**9
    )
    return Send(
        perps,
        encode_call("Perps", "apply_credit", (1, 1, leaf, 1, 1, 1), [], account, limit, 1, 10**9),
        gas=1_000_000,
    )


async def mine(anvil: Anvil) -> None:
    """Mine what a batch of many senders left in the pool."""
    while True:
        await trio.sleep(0.2)
        await anvil.mine()


async def open_positions(
    spec: NetworkSpec, anvils: Mapping[ChainId, Anvil], people: int
) -> list[bytes]:
    """Open positions of many leverages, every fourth short, secured by deposits on the hub."""
    hub, venue = spec.chain(HUB), spec.chain(VENUE)
    token, vault, perps = hub.tokens[0].address, contract(hub, "Vault"), contract(venue, "Perps")
    minter = Wallet(anvils[HUB].rpc, HUB, anvils[HUB].key(0))
    house, accounts = spec.account(perps), []
    sends = [
        Send(token, encode_call("DevToken", "mint", minter.address, 10**7 * USD), gas=200_000),
        Send(token, encode_call("DevToken", "approve", vault, 10**9 * USD), gas=200_000),
        Send(vault, encode_call("Vault", "deposit_for", house, token, 3 * 10**6 * USD)),
    ]
    raws = []
    for place in range(people):
        wallet = Wallet(anvils[VENUE].rpc, VENUE, anvils[VENUE].key(5 + place))
        account = spec.account(wallet.address)
        accounts.append(account)
        deposit = (1_000 + 37 * place) * USD
        sends.append(Send(vault, encode_call("Vault", "deposit_for", account, token, deposit)))
        notional = deposit * (20 + 55 * place // people) // 10
        size = notional * 10**10 // PRICE
        raws += await wallet.sign(
            [
                Send(perps, encode_call("Perps", "request_credit", 0, notional), gas=500_000),
                credit(venue, account, notional),
                Send(
                    perps,
                    encode_call("Perps", "increase", 0, ETH, -size if place % 4 == 3 else size, 0),
                    gas=2_000_000,
                ),
            ]
        )
    await minter.send(*sends)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mine, anvils[VENUE])
        await broadcast(anvils[VENUE].rpc, raws)
        nursery.cancel_scope.cancel()
    return accounts
