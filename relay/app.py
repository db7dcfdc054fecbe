"""The serving relay: startup, main loop, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay import _fastpath, feeds, kube_config, log
from relay.claims import Claims, own_address
from relay.engine import Engine, RefusalReport, Stopped, SubscriberEvent, SubscriberReport
from relay.failures import FailureLog
from relay.listen import open_sockets, raise_file_limit
from relay.nodes import NodeTable
from relay.reload import reload_settings
from relay.resolve import Resolver
from relay.services import PATHS, Services
from relay.settings import Address, Settings, SettingsError
from relay.sink_settings import SinkSettings, credentials, environment_warnings
from relay.sources import Loaded, Sources

if TYPE_CHECKING:
    from relay.certificates import Material
    from relay.cluster import Cluster
    from relay.rotation import Rotation
    from relay.sinks.group import Sinks
    from relay.tls import Certificates

logger = log.logger(__name__)

SHUTDOWN_SECONDS = 5.0
# How much longer than its own deadline the reactor may take before the process ends without it.
SHUTDOWN_MARGIN = 1.0
FLAG_OWNER = "-nodes "  # and the address: who claims the nodes that were named one by one

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2


@dataclass(slots=True)
class Relay:
    """A started relay."""

    settings: Settings
    sink_settings: SinkSettings
    sources: Sources
    engine: Engine
    nodes: NodeTable
    claims: Claims
    services: Services
    # Why the process ends, and its exit code; the first reason stands.
    ending: asyncio.Future[tuple[str, int]]
    started: float = field(default_factory=time.monotonic)
    # Why clients' TLS handshakes failed.
    refusals: FailureLog = field(default_factory=FailureLog)
    # The exit code after a second signal; 0 without one.
    forced: int = 0
    # The last word of subscribers that ended during the shutdown.
    ended: list[SubscriberReport] = field(default_factory=list)
    # None where no cluster is followed.
    cluster: Cluster | None = None
    # None where events go to subscribers alone.
    sinks: Sinks | None = None
    # None without TLS.
    rotation: Rotation | None = None


def run(loaded: Loaded, sources: Sources) -> int:
    """Serve until a signal or a failure; returns the exit code.

    Args:
        loaded: the settings to begin with.
        sources: where they were read from, for SIGHUP.
    Raises:
        SettingsError: a setting that the engine refuses, an address or certificates that are not to be had,
            or nothing to read from.
    """
    settings = loaded.settings
    if loaded.sinks.stdout and sys.stdout is None:
        raise SettingsError("standard output is closed, and -stdout prints there: leave it open, or leave -stdout out")
    log.set_up(settings.log_level, settings.log_format)
    source = find_cluster(settings, os.environ)
    raise_file_limit()
    sockets = open_sockets(settings.bind, settings.port)
    try:
        native = make_engine(settings)
        rotation = load_certificates(settings, native)
        for listener in sockets:
            native.listen(listener.fileno())
        where = [str(Address(*listener.getsockname()[:2])) for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()
    return asyncio.run(serve(loaded, sources, native, where, source, rotation))


async def serve(
    loaded: Loaded,
    sources: Sources,
    native: _fastpath.Engine,
    where: list[str],
    source: kube_config.Source | None,
    rotation: Rotation | None,
) -> int:
    """Run an engine that listens already, at `where`, to its end; returns the exit code."""
    relay = startup(loaded, sources, native, where, rotation)
    try:
        if loaded.sinks.stdout or loaded.sinks.sink:
            start_sinks(relay)
        if source is not None:
            follow_cluster(relay, source)
        reason, code = await main_loop(relay)
        return await shutdown(relay, reason, code)
    finally:
        relay.engine.close()


# --- startup --------------------------------------------------------------------------


def find_cluster(settings: Settings, environment: Mapping[str, str]) -> kube_config.Source | None:
    """The configuration for Kubernetes; None where the relay does without.

    Raises:
        SettingsError: there is none and no other nodes either, or it is of no use.
    """
    if settings.kubernetes == "off":
        return None
    found = kube_config.find(settings.kubeconfig, environment)
    if isinstance(found, str):
        if not settings.nodes:
            raise SettingsError(f"no nodes to read from: -nodes is not given, and Kubernetes was not found ({found})")
        return None
    kube_config.check(found)
    return found


def make_engine(settings: Settings) -> _fastpath.Engine:
    """An engine as the settings want it.

    Raises:
        SettingsError: the engine refuses one of them, or gets no memory or descriptors.
    """
    try:
        return _fastpath.Engine(
            journal_bytes=settings.journal_budget,
            max_event_bytes=settings.max_event_bytes,
            gather_us=settings.gather_us,
            max_connections=settings.max_connections,
            max_address_connections=settings.max_connections_per_address,
            max_streams=settings.max_streams,
            max_subscribers=settings.max_subscribers,
            client_bytes=settings.client_bytes,
            max_header_bytes=settings.max_header_bytes,
            max_request_bytes=settings.max_request_bytes,
            max_controls=settings.max_controls,
            handshake_timeout=settings.handshake_timeout,
            idle_timeout=settings.idle_timeout,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from None
    except (OSError, MemoryError) as error:
        raise SettingsError(f"the engine cannot start: {error}") from None


def load_certificates(settings: Settings, native: _fastpath.Engine) -> Rotation | None:
    """Give an engine its certificates, and what will follow their changes; None without TLS.

    Raises:
        SettingsError: they are not to be had, or not to be used.
    """
    if not settings.is_tls_to_subscribers and not settings.is_tls_to_nodes:
        return None
    from relay.rotation import Rotation  # a run without TLS does without its memory
    from relay.tls import make_certificates, make_provider, wanted_tls

    wanted = wanted_tls(settings)
    provider = make_provider(settings, os.environ)

    def make(material: Material) -> Certificates:
        return make_certificates(wanted, material, provider.folder, _fastpath.Tls)

    def use(made: Certificates) -> None:
        native.set_tls(server=made.server, client=made.client)
        # The reactor answers behind that: once the log tells of it no connection begins with what was there before.
        native.counters()

    rotation = Rotation(provider, make, use)
    rotation.load()
    return rotation


def startup(
    loaded: Loaded, sources: Sources, native: _fastpath.Engine, where: list[str], rotation: Rotation | None = None
) -> Relay:
    """Start the reactor and everything around it."""
    settings = loaded.settings
    loop = asyncio.get_running_loop()
    engine = Engine(native)
    nodes = NodeTable(native, Resolver(loop), loop)
    claims = Claims(nodes, own_address(settings.bind, settings.port))
    services = Services(native)
    relay = Relay(settings, loaded.sinks, sources, engine, nodes, claims, services, loop.create_future())
    relay.rotation = rotation

    watch(relay)

    native.handle(PATHS)
    engine.start()
    services.set_serving(True)
    logger.info(
        "serving",
        extra=log.fields(
            address=",".join(where),
            journal_bytes=settings.journal_budget,
            nodes=len(settings.nodes),
            **describe_tls(settings, rotation),
        ),
    )
    if rotation is not None:
        rotation.start(lambda error: _task_failed(relay, error))
    for warning in (*environment_warnings(os.environ), *loaded.sinks.warnings()):
        logger.warning(warning)
    claims.replace(FLAG_OWNER, settings.nodes)
    return relay


def describe_tls(settings: Settings, rotation: Rotation | None) -> dict[str, Any]:
    """What the log says of TLS when the relay begins to serve."""
    if rotation is None or rotation.current is None:
        return {"tls": "off"}
    sides = {"subscribers": rotation.current.server, "nodes": rotation.current.client}
    return {
        "tls": ",".join(side for side, tls in sides.items() if tls is not None),
        "tls_client_auth": settings.tls_client_auth,
        "tls_provider": settings.tls_cert_provider,
        "tls_in_kernel": any(tls.kernel for tls in sides.values() if tls is not None),
    }


def start_sinks(relay: Relay) -> None:
    """Carry events to what the settings name beside subscribers; every sink begins with the first event."""
    from relay.sinks.build import make_sinks  # a run without sinks does without their memory

    relay.sinks = make_sinks(relay.sink_settings, credentials(os.environ), relay.engine.native)
    relay.sinks.start(lambda error: _task_failed(relay, error))


def follow_cluster(relay: Relay, source: kube_config.Source) -> None:
    """Follow a cluster, in place of another that was followed."""
    from relay.cluster import Cluster, Wanted  # a run without a cluster does without its memory

    if relay.cluster is None:
        loop = asyncio.get_running_loop()
        relay.cluster = Cluster(relay.claims, relay.engine.native, loop, lambda error: _task_failed(relay, error))
    settings = relay.settings
    relay.cluster.follow(Wanted(source, settings.namespace, settings.node_selector, settings.discovered_port))


def watch(relay: Relay) -> None:
    """Set what is called when the engine reports, a signal comes, or something fails."""
    loop = asyncio.get_running_loop()
    relay.engine.on_node = relay.nodes.on_node
    relay.engine.on_stream = relay.nodes.on_stream
    relay.engine.on_call = relay.services.on_call
    relay.engine.on_subscriber = lambda report: on_subscriber(relay, report)
    relay.engine.on_refusal = lambda report: on_refusal(relay, report)
    relay.engine.stopped.add_done_callback(lambda stopped: _engine_stopped(relay, stopped.result()))
    loop.set_exception_handler(lambda _, context: _defect(relay, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end_signal, relay, number)
    loop.add_signal_handler(signal.SIGUSR1, log_counters, relay)
    loop.add_signal_handler(signal.SIGHUP, reload, relay)


# --- main loop ------------------------------------------------------------------------


async def main_loop(relay: Relay) -> tuple[str, int]:
    """Wait for the end: its reason, and the exit code that goes with it.

    All work is done in the handlers that startup has set.
    """
    return await relay.ending


def on_subscriber(relay: Relay, report: SubscriberReport) -> None:
    """Log a subscriber's life; the engine reports losses at most once in 10 s for each."""
    extra = log.fields(
        subscriber=report.subscriber,
        peer=report.peer,
        feed=feeds.NAMES[report.feed],
        delivered=report.delivered,
        lost=report.lost,
    )
    if report.event is SubscriberEvent.STARTED:
        logger.debug("subscriber started", extra=extra)
    elif report.event is SubscriberEvent.LOSING:
        logger.warning("subscriber loses events: it reads too slowly", extra=extra)
    elif report.event is SubscriberEvent.RECOVERED:
        logger.info("subscriber has stopped losing events", extra=extra)
    else:
        if relay.ending.done():
            relay.ended.append(report)
        level = log.WARNING if report.lost else log.DEBUG
        logger.log(level, "subscriber ended", extra=extra)


def on_refusal(relay: Relay, report: RefusalReport) -> None:
    """Log why a client was refused, the same reason once a minute."""
    times = relay.refusals.count(report.text, time.monotonic())
    if times:
        logger.warning("TLS handshake failed", extra=log.fields(peer=report.peer, error=report.text, times=times))


def _end_signal(relay: Relay, number: signal.Signals) -> None:
    """The first signal ends gracefully, the second at once."""
    if relay.ending.done():
        logger.warning("second signal: ending at once", extra=log.fields(signal=number.name))
        relay.forced = 128 + number
        relay.engine.shutdown(0)
        if relay.sinks is not None:
            relay.sinks.give_up()
    else:
        relay.ending.set_result((number.name, EXIT_OK))


def _fail(relay: Relay, reason: str) -> None:
    if not relay.ending.done():
        relay.ending.set_result((reason, EXIT_FAILURE))


def _engine_stopped(relay: Relay, stopped: Stopped) -> None:
    _fail(relay, f"the engine has stopped: {stopped.text or stopped.code}")


def _defect(relay: Relay, context: dict[str, Any]) -> None:
    """A handler raised: end, saying so, rather than go on half alive."""
    error = context.get("exception")
    logger.error(str(context.get("message", "unhandled error")), exc_info=error)
    _fail(relay, f"defect: {error!r}")


def _task_failed(relay: Relay, error: BaseException) -> None:
    """A task that was to run as long as the relay has ended."""
    _defect(relay, {"message": "a task has failed", "exception": error})


def reload(relay: Relay) -> None:
    """Take over what can be changed while serving, and say what cannot."""
    if relay.ending.done():
        return
    if relay.rotation is not None:
        relay.rotation.look_now()
    reloaded = reload_settings(relay.sources, relay.settings, relay.sink_settings)
    try:
        source = find_cluster(reloaded.settings, os.environ)
    except SettingsError as error:
        reloaded = replace(reloaded, settings=relay.settings, error=str(error))
    for line in reloaded.lines():
        logger.log(line.level, line.text, extra=log.fields(**line.values))
    if reloaded.error:
        return
    relay.settings = reloaded.settings
    if reloaded.has_changed("log_level", "log_format"):
        log.set_up(relay.settings.log_level, relay.settings.log_format)
    relay.claims.replace(FLAG_OWNER, relay.settings.nodes)
    if source is not None:
        follow_cluster(relay, source)
    if relay.cluster is not None:
        relay.cluster.refresh()


# --- shutdown -------------------------------------------------------------------------


async def shutdown(relay: Relay, reason: str, code: int) -> int:
    """End gracefully within the deadline; returns the exit code."""
    logger.log(
        log.ERROR if code else log.INFO,
        "ending",
        extra=log.fields(reason=reason, deadline=SHUTDOWN_SECONDS),
    )
    ends: list[asyncio.Future[Any]] = [relay.engine.stopped]
    if not relay.engine.stopped.done():
        relay.services.set_serving(False)
        relay.services.close()
        relay.engine.shutdown(SHUTDOWN_SECONDS)
        relay.nodes.stop()
    if relay.sinks is not None:
        # The reactor answers for its counters behind the shutdown, when it has let go of all nodes: what sinks find
        # in the journal from there on is all there will be.
        with contextlib.suppress(MemoryError):
            relay.engine.counters()
        ends.append(asyncio.ensure_future(relay.sinks.stop(SHUTDOWN_SECONDS)))
    if relay.cluster is not None:
        ends.append(relay.cluster.stop())
    if relay.rotation is not None:
        relay.rotation.stop()
    await asyncio.wait(ends, timeout=SHUTDOWN_SECONDS + SHUTDOWN_MARGIN)
    if not relay.engine.stopped.done():
        # close() would wait for a thread that does not end: leave without it.
        logger.error("the engine has not ended within its deadline")
        log.flush()
        os._exit(EXIT_FAILURE)
    log_counters(relay)
    stopped = relay.engine.stopped.result()
    if stopped.code:
        logger.error("the engine ended with an error", extra=log.fields(error=stopped.text))
        return code or EXIT_FAILURE
    logger.info("ended", extra=log.fields(reason=reason))
    return code or relay.forced


# --- counters -------------------------------------------------------------------------


def log_counters(relay: Relay) -> None:
    """Log all counters as one JSON line, whatever the log level."""
    try:
        log.counters(snapshot(relay))
    except MemoryError as error:
        logger.error("counters cannot be had", extra=log.fields(error=str(error)))


def snapshot(relay: Relay) -> dict[str, Any]:
    """All counters: the engine's, and what the control plane knows beside."""
    counters = relay.engine.counters()
    # One that was removed just now is the engine's for a moment longer than the table's.
    nodes = [(count, relay.nodes.describe(count["node"])) for count in counters["nodes"]]
    counters["nodes"] = [{**count, **known} for count, known in sorted(nodes, key=_number) if known]
    counters["subscribers"] += [
        {
            "subscriber": report.subscriber,
            "peer": report.peer,
            "feed": feeds.NAMES[report.feed],
            "delivered": report.delivered,
            "lost": report.lost,
            "status": report.code,
        }
        for report in relay.ended
    ]
    if relay.cluster is not None:
        counters["kubernetes"] = relay.cluster.describe()
    if relay.sinks is not None:
        counters["sinks"] = relay.sinks.describe()
    if relay.rotation is not None:
        counters["tls"] = relay.rotation.describe()
    process = counters["process"]
    process["uptime"] = round(time.monotonic() - relay.started, 3)
    process.update(memory())
    return counters


def _number(node: tuple[dict[str, Any], dict[str, Any]]) -> int:
    return int(node[0]["node"])


def memory() -> dict[str, int]:
    """Resident memory of this process now and at its highest, in bytes."""
    sizes = {"VmRSS": "rss", "VmHWM": "rss_peak"}
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in sizes:
            found[sizes[name]] = int(value.split()[0]) * 1024
    return found
