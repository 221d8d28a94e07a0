# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Perps
@license Apache-2.0
@notice Reference derivatives venue: perpetuals at oracle prices, within certified credit.
@dev
    request_credit ─▶ Credit leaf ─▶ apply_credit ─▶ increase   IMR + losses <= credit, not expired
                                                  └▶ reduce     always
    reduce_for        by Escrow, as the owner agreed in a flow
    liquidate         by Awards, inside its transient permission
    flag … public_after blocks … liquidate_public   by anyone, from local state alone

    It holds no tokens: `Realised` is cumulative µUSD per account, the venue's own account takes the
    other side of every trade, and the sum over all accounts is always 0. Keepers turn realised
    totals into Transfers in the vaults.

    units   price 1e-8 USD · size 10^-decimals · quote µUSD (negative for a long) · rates ppm
            equity of a position = floor(size·price / 10^(dec+2)) + quote + floor(-size·ΔF / 10^12)
    funding ΔF = price in µUSD per size unit · rate · Δt / day · 10^12, where
            rate = max_funding · clamp(skew / skew_scale, -1, 1): the crowded side pays.

    An account's loss since its credit was requested (from the best total reached) counts against
    the credit until a newer request is granted: lost collateral cannot be used twice. Parameters
    are fixed at deployment; a change is a new venue. A Breaker, if one is bound, can hold growth and
    liquidation back, never a reduction. Nobody owns this contract.
"""
from keeper.contracts import AggregatorV3
from keeper.contracts import IAwards
from keeper.contracts import IVenue
from keeper.contracts import gated
from keeper.contracts import proofs
from keeper.contracts import sealing

initializes: gated
initializes: sealing

implements: IVenue

event Position:
    account: indexed(bytes32)
    market: indexed(bytes32)
    size: int256
    quote: int256
    funding: int256

event CreditRequested:
    account: indexed(bytes32)
    limit: uint256
    nonce: uint64

event CreditSet:
    account: indexed(bytes32)
    limit: uint256
    nonce: uint64
    expiry: uint64

event Realised:
    account: indexed(bytes32)
    total: int256

event Funding:
    market: indexed(bytes32)
    index: int256

event Flagged:
    account: indexed(bytes32)
    at: uint64  # block; 0: cleared

event LeafUsed:
    leaf: indexed(bytes32)

struct Market:
    market: bytes32
    feed: address
    max_age: uint32  # seconds
    decimals: uint8
    im_ppm: uint32
    mm_ppm: uint32
    fee_ppm: uint32
    bonus_ppm: uint32
    max_funding_ppm: uint32  # a day, at full skew
    skew_scale: uint96  # size of the skew at which funding is full

struct Holding:
    size: int256
    quote: int256
    funding: int256

struct Credit:
    limit: uint256  # µUSD
    nonce: uint64
    expiry: uint64  # last block in which positions may grow
    markets: uint256  # bit i: the account holds something in market i

struct Exposure:
    imr: uint256
    mmr: uint256
    unrealised: int256

CREDIT_TYPE: constant(bytes32) = keccak256("Credit(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 account,uint256 limit,uint64 nonce,uint64 expiry)")
MAX_MARKETS: constant(uint256) = 16
MIN_DECIMALS: constant(uint8) = 4  # keeps the funding index within its field for centuries
MAX_DECIMALS: constant(uint8) = 10  # keeps the funding index of one size unit above 10^-12
PPM: constant(uint256) = 1_000_000
DAY: constant(int256) = 86_400
FUNDING_ONE: constant(int256) = 10**12
FLAG_LIFE: constant(uint64) = 1_000  # blocks a flag may be used after `public_after`
SHARES: constant(uint256[4]) = [60, 15, 15, 10]  # percent: insurance, committee, consistency, protocol

AWARDS: immutable(address)
ESCROW: immutable(address)
HOUSE: immutable(bytes32)  # the venue's own account
POT: immutable(bytes32)  # prices paid by winners, until `distribute`
RECEIVERS: immutable(bytes32[4])
PUBLIC_AFTER: immutable(uint64)  # blocks

ids: DynArray[bytes32, MAX_MARKETS]
place: HashMap[bytes32, uint256]  # index + 1
rules_a: HashMap[uint256, uint256]  # feed 160 | max_age 32 | fee 32 | bonus 32
rules_b: HashMap[uint256, uint256]  # skew_scale 96 | max_funding 32 | mm 32 | im 32 | decimals 8
tides: HashMap[uint256, uint256]  # skew 88 | funding 80 | time 64
holdings: HashMap[bytes32, HashMap[uint256, uint256]]  # size 88 | quote 88 | funding 80
credits: HashMap[bytes32, uint256]  # limit 112 | nonce 64 | expiry 64 | markets 16
request_nonce: public(HashMap[bytes32, uint64])
request_mark: HashMap[bytes32, int256]  # realised when the credit was requested
mark: HashMap[bytes32, int256]  # best realised total since the granted request
realised: public(HashMap[bytes32, int256])
flagged_at: public(HashMap[bytes32, uint64])


@deploy
def __init__(
    snapshots: address,
    awards: address,
    escrow: address,
    house: bytes32,
    receivers: bytes32[4],
    public_after: uint64,
    markets: DynArray[Market, MAX_MARKETS],
):
    """
    @param snapshots The Snapshots contract of this chain.
    @param awards The Awards contract of this chain.
    @param escrow The Escrow of this chain: it closes what owners agreed to by locking a leg there.
    @param house Account that takes the other side of every trade.
    @param receivers Accounts of insurance, committee, consistency pool and protocol.
    @param public_after Blocks between `flag` and `liquidate_public`.
    @param markets Markets and their parameters, for good.
    """
    gated.__init__()
    sealing.__init__(snapshots)
    AWARDS = awards
    ESCROW = escrow
    HOUSE = house
    POT = keccak256(abi_encode(sealing.NETWORK, self, convert(1, uint256)))  # account 0 is the house
    RECEIVERS = receivers
    PUBLIC_AFTER = public_after
    for market: Market in markets:
        assert self.place[market.market] == 0, "perps: market twice"
        assert MIN_DECIMALS <= market.decimals, "perps: too few decimals"
        assert market.decimals <= MAX_DECIMALS, "perps: too many decimals"
        assert 0 < market.mm_ppm and market.mm_ppm < market.im_ppm, "perps: margin order"
        assert market.bonus_ppm < market.mm_ppm, "perps: bonus above margin"
        assert market.skew_scale != 0, "perps: no skew scale"
        i: uint256 = len(self.ids)
        self.ids.append(market.market)
        self.place[market.market] = i + 1
        self.rules_a[i] = (
            (convert(market.feed, uint256) << 96)
            | (convert(market.max_age, uint256) << 64)
            | (convert(market.fee_ppm, uint256) << 32)
            | convert(market.bonus_ppm, uint256)
        )
        self.rules_b[i] = (
            (convert(market.skew_scale, uint256) << 104)
            | (convert(market.max_funding_ppm, uint256) << 72)
            | (convert(market.mm_ppm, uint256) << 40)
            | (convert(market.im_ppm, uint256) << 8)
            | convert(market.decimals, uint256)
        )
        self.tides[i] = block.timestamp


# ------------------------------------------------------------------ what it says


@external
def bind(breaker: address):
    """
    @notice Name the Breaker of this chain: by the deployer, once, and never again.
    """
    gated._bind(breaker)


@external
@view
def breaker() -> address:
    """
    @notice The Breaker that can hold growth and liquidation back, or the zero address.
    """
    return gated.breaker


@external
@view
def house() -> bytes32:
    """
    @notice The account that takes the other side of every trade.
    """
    return HOUSE


@external
@view
def pot() -> bytes32:
    """
    @notice The account that prices paid by winners collect in.
    """
    return POT


@external
@view
def public_after() -> uint64:
    """
    @notice Blocks between a flag and public liquidation.
    """
    return PUBLIC_AFTER


@external
@view
def markets() -> DynArray[bytes32, MAX_MARKETS]:
    """
    @notice All market ids in order.
    """
    return self.ids


@external
@view
def market(id: bytes32) -> Market:
    """
    @notice Parameters of a market.
    """
    return self._market(self._index(id))


@external
@view
def position(account: bytes32, id: bytes32) -> Holding:
    """
    @notice Size, quote and funding index of a position.
    """
    return self._holding(account, self._index(id))


@external
@view
def credit(account: bytes32) -> Credit:
    """
    @notice Limit, nonce, expiry and held markets of an account.
    """
    return self._credit(account)


@external
@view
def exposure(account: bytes32) -> Exposure:
    """
    @notice Requirements and unrealised profit at present prices, in µUSD.
    """
    return self._exposure(account, self._credit(account).markets)


@external
@view
def funding_index(id: bytes32) -> int256:
    """
    @notice The funding index at this moment.
    """
    i: uint256 = self._index(id)
    market: Market = self._market(i)
    return self._tide(i, market, self._price(market))[1]


@external
@view
def skew(id: bytes32) -> int256:
    """
    @notice The sum of all sizes in a market.
    """
    return self._signed(self.tides[self._index(id)], 24, 88)


@external
@view
def engaged(account: bytes32) -> bool:
    """
    @notice Whether the account holds a position or an unexpired credit.
    """
    credit: Credit = self._credit(account)
    return credit.markets != 0 or (
        credit.limit != 0 and convert(block.number, uint64) <= credit.expiry
    )


# ------------------------------------------------------------------ credit


@external
def request_credit(index: uint256, limit: uint256):
    """
    @notice Ask the keepers for credit; the newest request replaces the one before.
    @param limit Absolute limit in µUSD.
    """
    account: bytes32 = self._account(msg.sender, index)
    nonce: uint64 = max(self.request_nonce[account], self._credit(account).nonce) + 1
    self.request_nonce[account] = nonce
    self.request_mark[account] = self.realised[account]
    log CreditRequested(account=account, limit=limit, nonce=nonce)


@external
def apply_credit(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    account: bytes32,
    limit: uint256,
    nonce: uint64,
    expiry: uint64,
):
    """
    @notice Set an account's credit by certificate. Anyone may bring it.
    @param nonce Above the last applied one, and not below the account's newest request.
    """
    assert convert(block.number, uint64) <= expiry, "perps: decision expired"
    credit: Credit = self._credit(account)
    requested: uint64 = self.request_nonce[account]
    assert nonce > credit.nonce, "perps: decision used"
    assert nonce >= requested, "perps: a newer request is open"
    sealing._require(seal)
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                CREDIT_TYPE,
                sealing.NETWORK,
                seal.epoch,
                convert(chain.id, uint64),
                self,
                account,
                limit,
                nonce,
                expiry,
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "perps: not in the root"
    if nonce == requested:
        self.mark[account] = max(self.request_mark[account], self.realised[account])
    credit.limit = limit
    credit.nonce = nonce
    credit.expiry = expiry
    self._store_credit(account, credit)
    log LeafUsed(leaf=leaf)
    log CreditSet(account=account, limit=limit, nonce=nonce, expiry=expiry)


@external
def lower_credit(index: uint256, limit: uint256):
    """
    @notice Give credit back; it must still cover what is open.
    """
    account: bytes32 = self._account(msg.sender, index)
    credit: Credit = self._credit(account)
    assert limit < credit.limit, "perps: not lower"
    assert self._used(account, credit.markets) <= limit, "perps: credit is in use"
    credit.limit = limit
    self._store_credit(account, credit)
    log CreditSet(account=account, limit=limit, nonce=credit.nonce, expiry=credit.expiry)


# ------------------------------------------------------------------ trading


@external
def increase(index: uint256, id: bytes32, size_delta: int256, limit_price: uint256):
    """
    @notice Open or grow a position at the oracle price.
    @param size_delta Signed size; the sign must be that of the position.
    @param limit_price Worst price accepted, 1e-8 USD; 0 for any.
    """
    assert size_delta != 0, "perps: nothing to do"
    gated._require_open(id, gated.INCREASE)
    account: bytes32 = self._account(msg.sender, index)
    credit: Credit = self._credit(account)
    assert convert(block.number, uint64) <= credit.expiry, "perps: credit expired"
    i: uint256 = self._index(id)
    market: Market = self._market(i)
    price: uint256 = self._price(market)
    if limit_price != 0:
        if size_delta > 0:
            assert price <= limit_price, "perps: price above the limit"
        else:
            assert price >= limit_price, "perps: price below the limit"
    held: Holding = self._holding(account, i)
    assert (held.size >= 0) == (size_delta > 0) or held.size == 0, "perps: reduce first"
    tide: int256[2] = self._move_tide(i, market, price, size_delta)
    held = self._settle(held, tide[1])
    held.size += size_delta
    # the price of a trade rounds against the account: more paid for a long, less got for a short
    held.quote -= self._ceil(size_delta * convert(price, int256), self._unit(market))
    self._store(account, i, market.market, held)
    credit.markets |= 1 << i
    self._store_credit(account, credit)
    fee: int256 = convert(self._rate(self._notional(size_delta, price, market), market.fee_ppm), int256)
    self._trade(account, -fee)
    assert self._used(account, credit.markets) <= credit.limit, "perps: above the credit"


@external
def reduce(index: uint256, id: bytes32, size: uint256, limit_price: uint256):
    """
    @notice Close a part or all of a position at the oracle price; needs no credit.
    @param size How much to close, at most the position.
    @param limit_price Worst price accepted, 1e-8 USD; 0 for any.
    """
    account: bytes32 = self._account(msg.sender, index)
    i: uint256 = self._index(id)
    market: Market = self._market(i)
    price: uint256 = self._price(market)
    held: Holding = self._holding(account, i)
    if limit_price != 0:
        if held.size > 0:
            assert price >= limit_price, "perps: price below the limit"
        else:
            assert price <= limit_price, "perps: price above the limit"
    assert size != 0 and size <= self._abs(held.size), "perps: not that much open"
    self._reduce(account, i, market, price, held, size)


@external
def reduce_for(owner: address, index: uint256, id: bytes32, size: uint256) -> uint256:
    """
    @notice Close what an owner agreed to in a flow that has committed, or what is left of it. Only
        the escrow, which takes the owner from the leg that this very address has locked.
    @return How much was closed.
    """
    assert msg.sender == ESCROW, "perps: only the escrow"
    account: bytes32 = self._account(owner, index)
    i: uint256 = self._index(id)
    held: Holding = self._holding(account, i)
    closed: uint256 = min(size, self._abs(held.size))
    if closed != 0:
        market: Market = self._market(i)
        self._reduce(account, i, market, self._price(market), held, closed)
    return closed


@external
@view
def reducible(owner: address, index: uint256, id: bytes32) -> uint256:
    """
    @notice How much of a position `reduce_for` could close now.
    """
    return self._abs(self._holding(self._account(owner, index), self._index(id)).size)


@external
def settle(account: bytes32, id: bytes32):
    """
    @notice Fold accrued funding into a position's quote. Anyone may call.
    """
    i: uint256 = self._index(id)
    market: Market = self._market(i)
    tide: int256[2] = self._move_tide(i, market, self._price(market), 0)
    held: Holding = self._holding(account, i)
    if held.size != 0:
        self._store(account, i, id, self._settle(held, tide[1]))


# ------------------------------------------------------------------ liquidation


@external
def liquidate(
    task: bytes32, account: bytes32, market: bytes32, size: uint256, purse: bytes32, price: uint256
) -> (uint256, uint256, uint256):
    """
    @notice Close what an award allows. Only Awards, only inside its permission.
    @param purse Account credited the bonus less `price`.
    @param price µUSD the winner owes; the bonus must cover it.
    @return Size closed, size left, bonus in µUSD.
    """
    assert msg.sender == AWARDS, "perps: only awards"
    assert staticcall IAwards(AWARDS).permitted(task), "perps: not permitted"
    return self._liquidate(account, market, size, purse, price)


@external
def flag(account: bytes32):
    """
    @notice Start the clock of public liquidation for an account that breaches its credit.
    """
    assert self._breached(account), "perps: within its credit"
    now: uint64 = convert(block.number, uint64)
    at: uint64 = self.flagged_at[account]
    assert at == 0 or now > at + PUBLIC_AFTER + FLAG_LIFE, "perps: flagged already"
    self.flagged_at[account] = now
    log Flagged(account=account, at=now)


@external
def unflag(account: bytes32):
    """
    @notice Stop the clock for an account that is within its credit again.
    """
    assert self.flagged_at[account] != 0, "perps: not flagged"
    assert not self._breached(account), "perps: beyond its credit"
    self.flagged_at[account] = 0
    log Flagged(account=account, at=0)


@external
def liquidate_public(account: bytes32, market: bytes32, size: uint256, purse: bytes32) -> uint256:
    """
    @notice Liquidate with no certificate: the way out when the whole network is down.
    @return The bonus in µUSD.
    """
    at: uint64 = self.flagged_at[account]
    now: uint64 = convert(block.number, uint64)
    assert at != 0, "perps: not flagged"
    assert now >= at + PUBLIC_AFTER, "perps: not public yet"
    assert now <= at + PUBLIC_AFTER + FLAG_LIFE, "perps: flag is stale"
    assert self._breached(account), "perps: within its credit"
    return self._liquidate(account, market, size, purse, 0)[2]


@external
def distribute() -> uint256:
    """
    @notice Split collected prices 60/15/15/10 over insurance, committee, consistency, protocol.
    @return How much was split, µUSD.
    """
    total: int256 = self.realised[POT]
    assert total > 0, "perps: nothing to split"
    self._add(POT, -total)
    left: int256 = total
    for k: uint256 in range(3):
        share: int256 = total * convert(SHARES[3 - k], int256) // 100
        self._add(RECEIVERS[3 - k], share)
        left -= share
    self._add(RECEIVERS[0], left)
    return convert(total, uint256)


# ------------------------------------------------------------------ inside


@internal
@view
def _account(owner: address, index: uint256) -> bytes32:
    return keccak256(abi_encode(sealing.NETWORK, owner, index))


@internal
@view
def _index(id: bytes32) -> uint256:
    at: uint256 = self.place[id]
    assert at != 0, "perps: unknown market"
    return at - 1


@internal
@view
def _market(i: uint256) -> Market:
    a: uint256 = self.rules_a[i]
    b: uint256 = self.rules_b[i]
    mask: uint256 = 2**32 - 1
    return Market(
        market=self.ids[i],
        feed=convert(a >> 96, address),
        max_age=convert((a >> 64) & mask, uint32),
        decimals=convert(b & 255, uint8),
        im_ppm=convert((b >> 8) & mask, uint32),
        mm_ppm=convert((b >> 40) & mask, uint32),
        fee_ppm=convert((a >> 32) & mask, uint32),
        bonus_ppm=convert(a & mask, uint32),
        max_funding_ppm=convert((b >> 72) & mask, uint32),
        skew_scale=convert(b >> 104, uint96),
    )


@internal
@view
def _price(market: Market) -> uint256:
    round: uint80 = 0
    answer: int256 = 0
    started: uint256 = 0
    updated: uint256 = 0
    answered: uint80 = 0
    round, answer, started, updated, answered = staticcall AggregatorV3(
        market.feed
    ).latestRoundData()
    assert answer > 0, "perps: no price"
    assert updated <= block.timestamp, "perps: price from the future"
    assert block.timestamp - updated <= convert(market.max_age, uint256), "perps: stale price"
    assert answered >= round, "perps: unfinished round"
    return convert(answer, uint256)


@internal
@pure
def _unit(market: Market) -> int256:
    # size · price / unit = µUSD
    return 10 ** (convert(market.decimals, int256) + 2)


@internal
@pure
def _floor(a: int256, b: int256) -> int256:
    q: int256 = a // b
    return q - 1 if a < 0 and q * b != a else q


@internal
@pure
def _ceil(a: int256, b: int256) -> int256:
    q: int256 = a // b
    return q + 1 if a > 0 and q * b != a else q


@internal
@pure
def _abs(a: int256) -> uint256:
    return convert(a if a >= 0 else -a, uint256)


@internal
@pure
def _notional(size: int256, price: uint256, market: Market) -> uint256:
    return convert(
        self._ceil(convert(self._abs(size) * price, int256), self._unit(market)), uint256
    )


@internal
@pure
def _rate(amount: uint256, ppm: uint32) -> uint256:
    # rounds up: what an account owes
    return (amount * convert(ppm, uint256) + PPM - 1) // PPM


@internal
@pure
def _signed(word: uint256, above: uint256, bits: uint256) -> int256:
    # the signed field of `bits` bits that has `above` bits above it
    return convert(convert(word << above, bytes32), int256) >> (256 - bits)


@internal
@pure
def _field(number: int256, bits: uint256) -> uint256:
    # two's complement in `bits` bits
    half: int256 = convert(1 << (bits - 1), int256)
    assert -half <= number and number < half, "perps: number too large"
    return convert(convert(number, bytes32), uint256) & ((1 << bits) - 1)


@internal
@view
def _holding(account: bytes32, i: uint256) -> Holding:
    word: uint256 = self.holdings[account][i]
    return Holding(
        size=self._signed(word, 0, 88),
        quote=self._signed(word, 88, 88),
        funding=self._signed(word, 176, 80),
    )


@internal
def _store(account: bytes32, i: uint256, id: bytes32, held: Holding):
    self.holdings[account][i] = (
        (self._field(held.size, 88) << 168)
        | (self._field(held.quote, 88) << 80)
        | self._field(held.funding, 80)
    )
    log Position(
        account=account, market=id, size=held.size, quote=held.quote, funding=held.funding
    )


@internal
@view
def _credit(account: bytes32) -> Credit:
    word: uint256 = self.credits[account]
    mask: uint256 = 2**64 - 1
    return Credit(
        limit=word >> 144,
        nonce=convert((word >> 80) & mask, uint64),
        expiry=convert((word >> 16) & mask, uint64),
        markets=word & 65535,
    )


@internal
def _store_credit(account: bytes32, credit: Credit):
    assert credit.limit < 2**112, "perps: number too large"
    self.credits[account] = (
        (credit.limit << 144)
        | (convert(credit.nonce, uint256) << 80)
        | (convert(credit.expiry, uint256) << 16)
        | credit.markets
    )


@internal
def _add(account: bytes32, amount: int256):
    total: int256 = self.realised[account] + amount
    self.realised[account] = total
    log Realised(account=account, total=total)


@internal
def _trade(account: bytes32, amount: int256):
    # the trader's side of a trade, and the venue's
    self._add(account, amount)
    self._add(HOUSE, -amount)
    total: int256 = self.realised[account]
    if total > self.mark[account]:
        self.mark[account] = total


@internal
@view
def _tide(i: uint256, market: Market, price: uint256) -> int256[2]:
    # skew and funding index now
    word: uint256 = self.tides[i]
    skew: int256 = self._signed(word, 24, 88)
    index: int256 = self._signed(word, 112, 80)
    elapsed: int256 = convert(block.timestamp - (word & (2**64 - 1)), int256)
    if elapsed == 0 or skew == 0:
        return [skew, index]
    scale: int256 = convert(market.skew_scale, int256)
    pressure: int256 = max(-scale, min(scale, skew))
    per_unit: int256 = convert(price, int256) * FUNDING_ONE // self._unit(market)
    rate: int256 = convert(market.max_funding_ppm, int256) * pressure
    return [
        skew,
        index + self._floor(per_unit * rate * elapsed, scale * convert(PPM, int256) * DAY),
    ]


@internal
def _move_tide(i: uint256, market: Market, price: uint256, size_delta: int256) -> int256[2]:
    before: int256 = self._signed(self.tides[i], 112, 80)
    tide: int256[2] = self._tide(i, market, price)
    tide[0] += size_delta
    self.tides[i] = (
        (self._field(tide[0], 88) << 144)
        | (self._field(tide[1], 80) << 64)
        | block.timestamp
    )
    if tide[1] != before:
        log Funding(market=market.market, index=tide[1])
    return tide


@internal
@pure
def _settle(held: Holding, index: int256) -> Holding:
    # fold funding accrued since `held.funding` into the quote
    return Holding(
        size=held.size,
        quote=held.quote + self._floor(-held.size * (index - held.funding), FUNDING_ONE),
        funding=index,
    )


@internal
def _close(
    account: bytes32, i: uint256, market: Market, price: uint256, was: Holding, size: uint256
) -> int256:
    # take `size` off a position and return the profit realised, in µUSD
    part: int256 = convert(size, int256)
    whole: int256 = convert(self._abs(was.size), int256)
    signed_part: int256 = part if was.size > 0 else -part
    tide: int256[2] = self._move_tide(i, market, price, -signed_part)
    held: Holding = self._settle(was, tide[1])
    quote: int256 = self._floor(held.quote * part, whole)
    held.size -= signed_part
    held.quote -= quote
    if held.size == 0:
        held.funding = 0
        credit: Credit = self._credit(account)
        credit.markets &= ~(1 << i)
        self._store_credit(account, credit)
    self._store(account, i, market.market, held)
    return self._floor(signed_part * convert(price, int256), self._unit(market)) + quote


@internal
def _reduce(
    account: bytes32, i: uint256, market: Market, price: uint256, held: Holding, size: uint256
):
    # the trader's own close, for the fee
    profit: int256 = self._close(account, i, market, price, held, size)
    fee: int256 = convert(
        self._rate(self._notional(convert(size, int256), price, market), market.fee_ppm), int256
    )
    self._trade(account, profit - fee)


@internal
def _liquidate(
    account: bytes32, id: bytes32, size: uint256, purse: bytes32, due: uint256
) -> (uint256, uint256, uint256):
    assert purse != account and purse != empty(bytes32), "perps: bad purse"
    gated._require_open(id, gated.LIQUIDATE)
    i: uint256 = self._index(id)
    market: Market = self._market(i)
    price: uint256 = self._price(market)
    held: Holding = self._holding(account, i)
    open: uint256 = self._abs(held.size)
    closed: uint256 = min(size, open)
    assert closed != 0, "perps: nothing to liquidate"
    bonus: uint256 = (
        self._notional(convert(closed, int256), price, market)
        * convert(market.bonus_ppm, uint256)
        // PPM
    )
    assert due <= bonus, "perps: bonus below the price"
    profit: int256 = self._close(account, i, market, price, held, closed)
    self._add(account, profit - convert(bonus, int256))
    self._add(HOUSE, -profit)
    self._add(purse, convert(bonus - due, int256))
    if due != 0:
        self._add(POT, convert(due, int256))
    return closed, open - closed, bonus


@internal
@view
def _exposure(account: bytes32, held_markets: uint256) -> Exposure:
    sum: Exposure = empty(Exposure)
    for i: uint256 in range(MAX_MARKETS):
        if held_markets >> i == 0:
            break
        if (held_markets >> i) & 1 == 0:
            continue
        market: Market = self._market(i)
        price: uint256 = self._price(market)
        held: Holding = self._settle(
            self._holding(account, i), self._tide(i, market, price)[1]
        )
        notional: uint256 = self._notional(held.size, price, market)
        sum.imr += self._rate(notional, market.im_ppm)
        sum.mmr += self._rate(notional, market.mm_ppm)
        sum.unrealised += held.quote + self._floor(
            held.size * convert(price, int256), self._unit(market)
        )
    return sum


@internal
@view
def _used(account: bytes32, held_markets: uint256) -> uint256:
    # credit that is taken: initial margin, unrealised loss, and what was lost since the request
    sum: Exposure = self._exposure(account, held_markets)
    lost: int256 = max(0, self.mark[account] - self.realised[account])
    return sum.imr + convert(max(0, -sum.unrealised) + lost, uint256)


@internal
@view
def _breached(account: bytes32) -> bool:
    credit: Credit = self._credit(account)
    if credit.markets == 0:
        return False
    sum: Exposure = self._exposure(account, credit.markets)
    return convert(max(0, -sum.unrealised), uint256) + sum.mmr > credit.limit
