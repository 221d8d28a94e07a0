"""What of a peer's gossip control reaches the router: known topics, few entries, nobody to dial.

    graft, prune   one per topic we have; a prune names no peers to connect to (guard 14)
    ihave          ids we may want, the first so many
    iwant          ids to send again, each once: an answer is up to 64 KiB for 46 bytes
    idontwant      the few that stock keeps

Stock keeps a table entry for every topic a stranger invents, dials whom a stranger names, and
answers an id as often as it is repeated.
"""

from libp2p.pubsub.pb import rpc_pb2

from p2p.port import Topic

TOPICS = frozenset(topic.value for topic in Topic)
ENTRIES_MAX = 64
"""Entries of all kinds in one message; an honest peer has one of a kind for each of four topics."""
ID_MAX = 128
"""Length of a message id: 46 bytes, or twice as many hexadecimal digits."""
WANTED_MAX = 256
"""Ids of one IHAVE: more than three heartbeats of a committee at its pace."""
RESENT_MAX = 16
"""Ids of all IWANTs of one message; the answer is at most 1 MiB."""
UNWANTED_MAX = 10
"""Ids of all IDONTWANTs of one message: as many as stock keeps for a peer."""
BACK_OFF_MAX_S = 60
"""How long a peer may ask not to be grafted again."""


def lean(control: rpc_pb2.ControlMessage) -> rpc_pb2.ControlMessage:
    """Return the part of a control message that the router may see.

    Raises:
        ValueError: nobody honest sends so many entries.
    """
    entries = len(control.ihave) + len(control.iwant) + len(control.idontwant)
    if entries + len(control.graft) + len(control.prune) > ENTRIES_MAX:
        raise ValueError("too many control entries")
    kept = rpc_pb2.ControlMessage()
    for topic in sorted(TOPICS & {graft.topicID for graft in control.graft}):
        kept.graft.add(topicID=topic)
    for prune in control.prune:
        if prune.topicID in TOPICS:
            kept.prune.add(topicID=prune.topicID, backoff=min(prune.backoff, BACK_OFF_MAX_S))
    for ihave in control.ihave:
        if ihave.topicID in TOPICS:
            ids = [one for one in ihave.messageIDs if len(one) <= ID_MAX]
            kept.ihave.add(topicID=ihave.topicID, messageIDs=ids[:WANTED_MAX])
    resent = dict.fromkeys(one for iwant in control.iwant for one in iwant.messageIDs)
    if resent:
        kept.iwant.add(messageIDs=list(resent)[:RESENT_MAX])
    unwanted = dict.fromkeys(one for said in control.idontwant for one in said.messageIDs)
    if unwanted:
        ids = [one for one in unwanted if len(one) <= ID_MAX]
        kept.idontwant.add(messageIDs=ids[:UNWANTED_MAX])
    return kept
