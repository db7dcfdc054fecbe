"""Two oracles of relay/native/enrich.pxd: one that parses, edits and encodes an event, and one that keeps its bytes."""

from collections.abc import Iterable, Mapping

from unit import oracle_ip, oracle_repair, oracle_scan
from unit.oracle_scan import BYTES, CLASSES, MALFORMED

from relay import kubearmor_pb2 as pb
from relay.feeds import LOGS

RESOURCE, DATA = 16, 17  # of a log
# Go's unicode.IsSpace: Unicode's White_Space. (Python's str.split() cuts at four control characters more.)
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

Names = Mapping[bytes, str]  # by address of 16 bytes


def fields(text: str) -> Iterable[str]:
    """Go's strings.Fields."""
    for space in SPACES:
        text = text.replace(space, " ")
    return filter(None, text.split(" "))


def host(resource: str, names: Names) -> str | None:
    """The name that a Resource asks for."""
    for field in fields(resource):
        if "remoteip=" in field:
            address = oracle_ip.parse(field.split("=", 1)[1].encode())
            if address is not None:
                return names.get(address)
    return None


def suffix(resource: str, data: str, names: Names) -> str:
    """What is appended to the Resource of a log."""
    name = host(resource, names) if "tcp_" in data else None
    return "" if name is None else f" remotehost={name}"


def enriched_log(event: bytes, names: Names) -> pb.Log:
    """A well-formed log as a subscriber reads it, enriched."""
    log = pb.Log.FromString(event)
    log.Resource += suffix(log.Resource, log.Data, names)
    return log


def enriched(event: bytes, names: Names, limit: int) -> bytes:
    """A well-formed log on the wire, enriched: only the last Resource and its length are written anew."""
    strings = {RESOURCE: b"", DATA: b""}
    places = {}
    at = 0
    for field in oracle_scan.fields(event, 0):
        at += len(field.tag)
        if field.number in strings and field.wire == BYTES:
            strings[field.number] = field.body
            places[field.number] = (at, at + len(field.value))
        at += len(field.value)
    more = suffix(strings[RESOURCE].decode(), strings[DATA].decode(), names).encode()
    if not more:
        return event
    start, end = places[RESOURCE]
    body = strings[RESOURCE] + more
    made = event[:start] + oracle_repair.varint(len(body)) + body + event[end:]
    return made if len(made) <= limit else event


def taken(feed: int, event: bytes, names: Names, limit: int) -> bytes | None:
    """What the journal has of an event: repaired, then enriched; None when it is malformed, or too large repaired."""
    if oracle_scan.scan(feed, event) == MALFORMED:
        return None
    repaired, count = oracle_repair.repair(feed, event)
    if count and len(repaired) > limit:
        return None
    # `repair` of a valid event gives back its bytes.
    return enriched(repaired, names, limit) if feed == LOGS else repaired


__all__ = ["CLASSES", "DATA", "RESOURCE", "enriched", "enriched_log", "fields", "host", "suffix", "taken"]
