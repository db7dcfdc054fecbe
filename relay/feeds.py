"""The three feeds: numbers, names, methods, and the filter words that each serves.

The numbers are those of the engine (relay._fastpath) and index every table by feed.
"""

from collections.abc import Mapping
from typing import Final

MESSAGES: Final = 0
ALERTS: Final = 1
LOGS: Final = 2

FEEDS: Final = (MESSAGES, ALERTS, LOGS)
NAMES: Final = ("messages", "alerts", "logs")
BY_NAME: Final[Mapping[str, int]] = {name: feed for feed, name in enumerate(NAMES)}

SERVICE: Final = "feeder.LogService"
METHODS: Final = (
    f"/{SERVICE}/WatchMessages",
    f"/{SERVICE}/WatchAlerts",
    f"/{SERVICE}/WatchLogs",
)
HEALTH_CHECK: Final = f"/{SERVICE}/HealthCheck"

# What the relay asks a node for, as KubeArmor expects it.
NODE_FILTERS: Final = ("all", "policy", "system")

# The words that clients send. A feed serves its own words, and "" for everything; another
# feed's word ends the stream at once with OK, as clients of the Go relay know it.
FILTER_WORDS: Final = frozenset({"all", "policy", "system"})
FILTERS: Final = (
    frozenset({"", "all", "policy", "system"}),
    frozenset({"", "all", "policy"}),
    frozenset({"", "all", "system"}),
)
