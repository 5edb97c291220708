"""TCP in, a manager run per item: servers for data that others send.

An `IngestServer` is given a `Framing`, which says where an item begins and ends in the
bytes of a connection, and a Manager. `ItemFraming` is one for items of any kind that
its senders get answers for; docs/protocols.md shows what they send.
"""

from opencluster.ingest.framing import (
    Broken,
    Event,
    Framing,
    ItemBegun,
    ItemData,
    ItemEnded,
    ItemGivenUp,
    Rejected,
    Verdict,
)
from opencluster.ingest.items import Answer, AnswerReader, ItemFraming, item_head
from opencluster.ingest.sender import ItemSender, Link, Sent, connect
from opencluster.ingest.server import IngestServer
from opencluster.ingest.status import IngestStatus
from opencluster.ingest.tls import TLSFiles
from opencluster.start import set_up_logging
from opencluster.store.spool import Stored as Item

__all__ = [
    "Answer",
    "AnswerReader",
    "Broken",
    "Event",
    "Framing",
    "IngestServer",
    "IngestStatus",
    "Item",
    "ItemBegun",
    "ItemData",
    "ItemEnded",
    "ItemFraming",
    "ItemGivenUp",
    "ItemSender",
    "Link",
    "Rejected",
    "Sent",
    "TLSFiles",
    "Verdict",
    "connect",
    "item_head",
    "set_up_logging",
]
