"""Oracle of relay/native/ip.pxd: Go's net.ParseIP, by cutting the text where ip.pxd reads along it."""

import re

GROUP = re.compile(r"[0-9A-Fa-f]{1,4}")
NUMBER = re.compile(r"0|[1-9][0-9]{0,2}")
MAPPED = bytes(10) + b"\xff\xff"


def four(text: str) -> bytes | None:
    parts = text.split(".")
    if len(parts) != 4 or not all(NUMBER.fullmatch(part) and int(part) <= 255 for part in parts):
        return None
    return bytes(map(int, parts))


def groups(text: str, *, last: bool) -> bytes | None:
    """The bytes of groups with colons between; those that end the address may end with IPv4."""
    if not text:
        return b""
    made = b""
    parts = text.split(":")
    for index, part in enumerate(parts):
        if last and index == len(parts) - 1 and "." in part:
            tail = four(part)
            if tail is None:
                return None
            made += tail
        elif GROUP.fullmatch(part):
            made += int(part, 16).to_bytes(2, "big")
        else:
            return None
    return made


def six(text: str) -> bytes | None:
    head, gap, tail = text.partition("::")
    first = groups(head, last=not gap)
    second = groups(tail, last=True)
    if first is None or second is None:
        return None
    size = len(first) + len(second)
    if not gap:
        return first if size == 16 else None
    return first + bytes(16 - size) + second if size < 16 else None


def parse(data: bytes) -> bytes | None:
    """The sixteen bytes of an address, or None."""
    text = data.decode("latin-1")
    if ":" in text:
        return six(text)
    found = four(text)
    return None if found is None else MAPPED + found
