"""A member's work in one epoch: the session, and what follows from its final views."""

from typing import Any

import trio

from keeper.clear.breakers import BreakerRule
from keeper.clear.credit import CreditRule
from keeper.clear.release import ReleaseRule
from keeper.clear.stop import StopRule
from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.compete.payout import PayoutRule
from keeper.compete.state import AwardState
from keeper.compete.state import decode as decode_state
from keeper.config import Config
from keeper.legs import LegKind
from keeper.node.calling import Calling
from keeper.node.chase import Chase
from keeper.node.courier import Couriers
from keeper.node.filling import filler_of
from keeper.node.own import own_work
from keeper.node.parts import Parts
from keeper.node.registry import Registry
from keeper.node.risk import RiskWork
from keeper.node.routing import routing_of
from keeper.node.session import Listeners, Session
from keeper.node.shown import Shown
from keeper.node.trader import Trader
from keeper.settle.activation import Activator
from keeper.settle.attest import AttestationRule
from keeper.settle.awards import AwardRunner
from keeper.settle.flow import FlowRule
from keeper.settle.heads import HeadWatch
from keeper.settle.rotation import CommitteeRule
from keeper.settle.service import Carrier
from keeper.snapshot.decisions import DecisionRule
from keeper.snapshot.derive import Snapshot
from keeper.venue.book import system_accounts
from p2p.frost.keys import KeyShare
from p2p.port import Topic
from p2p.service import Channel
from p2p.types import Committee
from policies.discover import spec_of


def rules() -> tuple[DecisionRule, ...]:
    """Return the decision rules in order: breakers, clearing, competition, settlement, rotation."""
    return (
        BreakerRule(),
        TransferRule(),
        PayoutRule(),
        ReleaseRule(),
        CreditRule(),
        AwardRule(),
        FlowRule(),
        AttestationRule(),
        CommitteeRule(),
        StopRule(),
    )


class MemberWork:
    """Everything a committee member runs in one epoch."""

    def __init__(
        self,
        parts: Parts,
        config: Config,
        committee: Committee,
        share: KeyShare,
        registry: Registry,
        calling: Calling,
    ) -> None:
        self.parts, self._calling = parts, calling
        self._apart = system_accounts(parts.network)
        self.session = Session(
            parts,
            committee,
            share,
            rules(),
            Listeners(
                lambda: self.trader.hearing.seen(),
                self._on_final,
                self._on_seal,
                calling.named,
                {
                    Topic.BIDS: lambda peer, frame: self.trader.take(peer, frame),
                    Topic.MESSAGES: lambda peer, frame: self.couriers.take(peer, frame),
                    Channel.CEREMONY: calling.take,
                },
                lambda observations: self.heads.look(observations),
            ),
        )
        self.state = self.session.state
        self.heads = HeadWatch(parts.network, parts.executor, parts.watchers, self.session.me)
        self._chase = Chase(
            committee,
            parts.p2p,
            registry.newest_committee,
            lambda: self.state.view,
            self.session.follow,
        )
        name = config.policies.get("liquidation", "liquidation")
        self.trader = Trader(
            parts,
            self.session.setting,
            spec_of(name, config.settings_of("liquidation")),
            self.session.application.offer,
            self._on_awards,
            config.coins,
        )
        setting = self.session.setting
        self.filler = filler_of(parts, config, setting, self.trader.costs, self.session.me)
        self.own = own_work(parts, config, self.session.setting, self.trader.costs)
        self.couriers = Couriers(parts, config)
        promised = dict if self.filler is None else self.filler.promised
        traffic = self.couriers.traffic
        self.routing = routing_of(parts, config, setting, self.trader.costs, promised, traffic)
        if self.filler is not None and self.routing is not None:
            self.filler.spoken_for = self.routing.follower.leaving
        self.carrier = Carrier(
            parts.network,
            parts.archive,
            parts.executor,
            self.session.me,
            committee.size,
            parts.metrics,
        )
        self.activator = Activator(
            parts.network, parts.watchers, parts.executor, self.session.me, committee.size
        )
        self.runner = AwardRunner(
            parts.network,
            parts.archive,
            parts.executor,
            parts.watchers,
            parts.keys.address,
            parts.metrics,
            self.trader.on_award_run,
        )

        group_key = int.from_bytes(share.group.x_only, "big")
        self.shown = Shown(self.session.setting, parts.archive, group_key)
        self.risk = RiskWork(parts, lambda: self.shown.newest)

    async def run(self) -> bool:
        """Work until the epoch is over; return False if it went on without this keeper."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.trader.run)
            if self.own is not None:
                nursery.start_soon(self.own.run)
            nursery.start_soon(self.carrier.run)
            nursery.start_soon(self.couriers.run)
            nursery.start_soon(self.heads.run)
            nursery.start_soon(self.activator.run)
            if self.filler is not None:
                nursery.start_soon(self.filler.run)
            if self.routing is not None:
                nursery.start_soon(self.routing.run)
            nursery.start_soon(self.runner.run)
            nursery.start_soon(self.risk.run)
            nursery.start_soon(self._chase.end, nursery.cancel_scope)
            await self.session.run()
            nursery.cancel_scope.cancel()
        return self.state.last is not None

    def _on_final(self, snapshot: Snapshot) -> None:
        self._calling.on_final(snapshot)
        self.activator.on_final(snapshot)
        self.shown.on_final(snapshot)
        self.parts.recorder.on_final(snapshot)
        self.carrier.on_final(snapshot)
        if self.filler is not None:
            self.filler.on_final(snapshot)
        self.trader.on_final(snapshot)
        if self.routing is not None:
            self.routing.on_final(snapshot)
        if self.own is not None:
            self.own.on_final(snapshot)

    def _on_seal(self, view: int) -> None:
        self.shown.on_seal(view)
        self.parts.recorder.on_seal(view)
        self.carrier.poke()
        self.runner.poke()

    def _on_awards(self, state: AwardState) -> None:
        self.runner.on_state(state)

    def _unsettled(self, snapshot: Snapshot) -> int:
        """Return how many accounts have a result at a venue that is worth moving and has not."""
        least = self.parts.parameters.clearing.transfer_minimum
        return sum(
            leg.kind is LegKind.PERP and leg.size == 0 and abs(leg.quote) >= least
            for account, legs in snapshot.legs.items()
            if account not in self._apart
            for leg in legs
        )

    def status(self) -> dict[str, Any]:
        """Return this epoch's part of the status page."""
        session, newest = self.session, self.shown.newest
        value: dict[str, Any] = {
            "epoch": session.committee.epoch,
            "began": session.begins.view,
            "member": session.me,
            "members": session.committee.size,
            "view": session.core.view,
            "final_view": session.state.view,
            "sealed_view": session.state.sealed_view,
            "evidence": session.evidence,
            "policy_faults": dict(self.trader.seat.host.faults),
            "bids": self.trader.bids,
            "routing": None if self.routing is None else self.routing.status(),
        }
        if newest is not None:
            state = decode_state(newest.book.rules["award"])
            value |= {
                "accounts": newest.header.totals.accounts,
                "equity_uusd": newest.header.totals.equity,
                "unhealthy": sum(
                    not margin.healthy
                    for account, margin in newest.margins.items()
                    if account not in self._apart
                ),
                "outstanding": len(newest.book.outstanding),
                "unsettled": self._unsettled(newest),
                "tasks": len(state.tasks),
                "awards": len(state.awards),
                "cut": {str(ref.chain): ref.number for ref in newest.header.cut},
                "prices": {
                    market.rstrip(b"\0").decode(): price.price_e8
                    for market, price in newest.book.prices.items()
                },
            }
        return value
