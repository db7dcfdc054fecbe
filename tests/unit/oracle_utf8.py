"""Oracle of relay/native/utf8.pxd, on Python's own strict UTF-8 decoder."""


def valid(data: bytes) -> bool:
    """Whether data is UTF-8 by RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def repaired(data: bytes) -> tuple[bytes, int]:
    """The text with each invalid byte replaced by U+FFFD, and how many were.

    The decoder reports an invalid stretch of 1 to 3 bytes at a time; "surrogateescape" turns each of its
    bytes into one character of its own (U+DC80 to U+DCFF), which no valid text contains.
    """
    text = data.decode(errors="surrogateescape")
    stray = sum("\udc80" <= char <= "\udcff" for char in text)
    return "".join("\ufffd" if "\udc80" <= char <= "\udcff" else char for char in text).encode(), stray
