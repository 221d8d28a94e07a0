"""The routing policy over hours of traffic: what is asked for is there, and few moves bring it.

    traffic (seeded, drains one chain) ─▶ holdings ─▶ Routing.decide ─▶ moves ─▶ arrive later

Two controls run through the same traffic: nobody moves anything, and a policy that is not told what
is already on its way.
"""

import random
from dataclasses import dataclass, field

import pytest

from keeper.units import symbol
from policies.api import Act, BridgeQuote, Holding, MarketView, Wide
from policies.routing import Routing, RoutingConfig

USDC = symbol("USDC")
CHAINS = (1, 10, 42)
MINUTE = 60_000
LATE = 12
"""Minutes a transfer takes."""
START = 10**12
FEE_PPM = 400


@dataclass
class World:
    """Holdings on three chains, and what is on its way between them."""

    seed: int
    told: bool = True
    held: dict[int, int] = field(default_factory=lambda: dict.fromkeys(CHAINS, START))
    flying: list[tuple[int, int, int]] = field(default_factory=list)
    asked: int = 0
    served: int = 0
    moves: int = 0
    state: bytes = b""

    def view(self, minute: int) -> MarketView:
        coming = dict.fromkeys(CHAINS, 0)
        for _, chain, amount in self.flying:
            coming[chain] += amount * self.told
        lanes = tuple(
            BridgeQuote(
                bytes([a, b]) * 10, a, b, USDC, FEE_PPM, 10**6, LATE * MINUTE // 2,
                LATE * MINUTE, 2, Wide(10**13),
            )
            for a in CHAINS
            for b in CHAINS
            if a != b
        )  # fmt: skip
        rows = tuple(Holding(c, USDC, Wide(self.held[c]), Wide(coming[c])) for c in CHAINS)
        return MarketView(minute, minute * MINUTE, self.seed, inventory=rows, bridges=lanes)

    def traffic(self, chance: random.Random, minute: int) -> None:
        """Let users take on one chain what they bring on another; the first is drained."""
        for _ in range(chance.randint(0, 2)):
            start, end = chance.sample(CHAINS, 2)
            if chance.random() < 0.4 and minute % 240 < 120:
                start, end = CHAINS[1 + (minute // 240) % 2], CHAINS[0]
            amount = chance.randint(START // 200, START // 40)
            self.asked += amount
            if self.held[end] >= amount:
                self.served += amount
                self.held[end] -= amount
                self.held[start] += amount

    def carry(self, minute: int) -> None:
        for _, chain, amount in [one for one in self.flying if one[0] <= minute]:
            self.held[chain] += amount
        self.flying = [one for one in self.flying if one[0] > minute]

    def move(self, policy: Routing, minute: int) -> None:
        decisions, self.state = policy.decide(self.view(minute), self.state)
        for one in decisions:
            if not isinstance(one, Act):
                continue
            (step,) = one.steps
            names = dict(step.numbers)
            amount, least = int(names["amount"]), int(names["least_out"])
            assert 0 < least <= amount - amount * FEE_PPM // 10**6 - 10**6
            assert amount <= self.held[step.chain], "a plan spends what is there"
            self.held[step.chain] -= amount
            self.flying.append((minute + LATE, int(names["destination"]), least))
            self.moves += 1


def run(seed: int, policy: Routing | None, told: bool = True) -> World:
    world, chance = World(seed, told), random.Random(seed)
    for minute in range(720):
        world.carry(minute)
        world.traffic(chance, minute)
        if policy is not None:
            world.move(policy, minute)
    return world


@pytest.mark.parametrize("seed", range(200, 208))
def test_what_is_asked_for_is_there_and_few_moves_bring_it(seed: int) -> None:
    config = RoutingConfig(floor=START // 10)
    still = run(seed, None)
    aware = run(seed, Routing(config))
    blind = run(seed, Routing(config), told=False)
    assert still.served * 100 < 97 * still.asked, "without moves there is not enough"
    assert aware.served * 100 >= 99 * aware.asked
    assert aware.moves <= 6
    assert blind.moves >= 2 * aware.moves, "who does not see what is coming orders again"
