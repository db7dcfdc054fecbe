"""Which failures get a log line: a new one at once, the same again once a minute or as told, with the count."""

from __future__ import annotations

REPEAT_AFTER = 60.0  # seconds between two lines about the same failure
REASONS_KEPT = 16  # with more reasons than this within that time, the rest are counted as one
OTHER = "other"


class FailureLog:
    """The failures of one node, or of one other thing that is tried again and again."""

    def __init__(self, repeat_after: float = REPEAT_AFTER) -> None:
        """`repeat_after` is the time between two lines about the same failure, in seconds."""
        self._repeat_after = repeat_after
        self._reasons: dict[str, tuple[float, int]] = {}

    def count(self, reason: str, now: float) -> int:
        """Note a failure; returns how many to report (this one included), 0 for silence."""
        if reason not in self._reasons:
            # With room to spare one that was kept from the log waits for its next time, to tell the count.
            full = len(self._reasons) >= REASONS_KEPT
            for old, (when, silent) in list(self._reasons.items()):
                if now - when >= self._repeat_after and (full or not silent):
                    del self._reasons[old]
            if len(self._reasons) >= REASONS_KEPT:
                reason = OTHER
        when, silent = self._reasons.get(reason, (now - self._repeat_after, 0))
        if now - when < self._repeat_after:
            self._reasons[reason] = (when, silent + 1)
            return 0
        self._reasons[reason] = (now, 0)
        return silent + 1
