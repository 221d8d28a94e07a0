"""Couriers of keepers that hear each other at once and pay with their chains' own accounts."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from keeper.route.bridges.origins import origins_of
from keeper.route.bridges.port import Bridge, Send
from keeper.route.bridges.service import Courier
from keeper.units import ChainId
from tests.support.hyperlane_contracts import Site


@asynccontextmanager
async def running(
    bridge: Bridge, keys: Sequence[bytes], sites: Mapping[ChainId, Site], silent: frozenset[int]
) -> AsyncIterator[list[bytes]]:
    """Run a courier for each key, less the silent ones. Yields all that was said."""
    said: list[bytes] = []
    couriers: dict[int, Courier] = {}

    def voice(me: int) -> Callable[[bytes], None]:
        def say(frame: bytes) -> None:
            said.append(frame)
            for place, other in couriers.items():
                if place != me:
                    other.take(frame)

        return say

    def purse(me: int) -> Callable[[Send], Awaitable[bool]]:
        async def bring(one: Send) -> bool:
            site = sites[one.chain]
            return (await site.attempt(one, site.shop.people[me])).succeeded

        return bring

    chains = {chain: site.chain for chain, site in sites.items()}
    for me, key in enumerate(keys):
        if me not in silent:
            origins = origins_of([bridge], key)
            couriers[me] = Courier(
                origins, chains, voice(me), purse(me), patience_s=0.2, poll_s=0.02
            )
    async with trio.open_nursery() as nursery:
        for courier in couriers.values():
            nursery.start_soon(courier.run)
        yield said
        nursery.cancel_scope.cancel()
