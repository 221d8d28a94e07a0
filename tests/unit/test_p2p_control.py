"""What of a peer's gossip control the router may see; the rest is what hurts stock."""

import pytest
from libp2p.pubsub.pb import rpc_pb2

from p2p.control import (
    BACK_OFF_MAX_S,
    ENTRIES_MAX,
    ID_MAX,
    RESENT_MAX,
    TOPICS,
    UNWANTED_MAX,
    WANTED_MAX,
    lean,
)

TOPIC = min(TOPICS)
ID = b"\xab" * 46


def test_what_an_honest_peer_says_passes() -> None:
    said = rpc_pb2.ControlMessage()
    for topic in sorted(TOPICS):
        said.graft.add(topicID=topic)
        said.prune.add(topicID=topic, backoff=1)
        said.ihave.add(topicID=topic, messageIDs=[ID])
    said.iwant.add(messageIDs=[ID])
    said.idontwant.add(messageIDs=[ID])
    assert lean(said) == said
    assert not lean(rpc_pb2.ControlMessage()).ByteSize()


def test_topics_that_a_stranger_invents_are_not_remembered() -> None:
    said = rpc_pb2.ControlMessage()
    said.graft.add(topicID="invented")
    said.prune.add(topicID="invented", backoff=1 << 60)
    said.ihave.add(topicID="invented", messageIDs=[ID])
    assert not lean(said).ByteSize()


def test_a_prune_names_nobody_to_dial_and_ends() -> None:
    said = rpc_pb2.ControlMessage()
    prune = said.prune.add(topicID=TOPIC, backoff=1 << 60)
    prune.peers.add(peerID=b"whom to dial", signedPeerRecord=b"where")
    (kept,) = lean(said).prune
    assert not kept.peers
    assert kept.backoff == BACK_OFF_MAX_S


def test_an_id_is_sent_again_once_and_few_are() -> None:
    said = rpc_pb2.ControlMessage()
    said.iwant.add(messageIDs=[ID] * 5000)
    said.iwant.add(messageIDs=[ID, *(b"%046d" % number for number in range(5000))])
    (kept,) = lean(said).iwant
    assert len(kept.messageIDs) == len(set(kept.messageIDs)) == RESENT_MAX


def test_ids_are_bounded_in_number_and_length() -> None:
    said = rpc_pb2.ControlMessage()
    said.ihave.add(topicID=TOPIC, messageIDs=[b"a" * (ID_MAX + 1), *[ID] * 5000])
    said.idontwant.add(messageIDs=[b"a" * (ID_MAX + 1)])
    said.idontwant.add(messageIDs=[b"%046d" % number for number in range(5000)])
    kept = lean(said)
    assert list(kept.ihave[0].messageIDs) == [ID] * WANTED_MAX
    assert len(kept.idontwant[0].messageIDs) == UNWANTED_MAX
    assert all(len(one) <= ID_MAX for one in kept.idontwant[0].messageIDs)


@pytest.mark.parametrize("kind", ["ihave", "iwant", "graft", "prune", "idontwant"])
def test_too_many_entries_are_a_fault(kind: str) -> None:
    said = rpc_pb2.ControlMessage()
    for _ in range(ENTRIES_MAX):
        getattr(said, kind).add()
    lean(said)
    getattr(said, kind).add()
    with pytest.raises(ValueError, match="too many"):
        lean(said)
