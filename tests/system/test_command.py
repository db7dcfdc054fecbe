"""The installed command as a process: exit codes, signals, nodes that come and go, the other commands."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from peers import events
from peers.client import Subscriber, channel
from peers.command import HOST, PATIENT, PROGRAM, WAIT, Command, Relay, environment, finished, free_port
from peers.node import Node

from relay import __version__

MESSAGES, ALERTS, LOGS = events.FEEDS


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as command:
        yield command


# --- starting -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        (["-grpcport", "1"], {}, "unknown flag -grpcport: did you mean -gRPCPort?"),
        (["-gRPCPort", "many"], {}, "flag -gRPCPort: 'many' is wrong: accepted is a TCP port from 1 to 65535"),
        (["-journal-bytes", "1KiB"], {}, "-journal-bytes 1024 is too small: accepted is 25190400 or more"),
        ([], {"RELAY_NODES": "a"}, "RELAY_NODES: 'a' is wrong: accepted is host:port"),
        (["-nodes=a:1", "-bind", "192.0.2.1"], {}, "cannot listen on 192.0.2.1:32767: not an address of this machine"),
        (["observe", "-server=a"], {}, "flag -server: 'a' is wrong: accepted is host:port"),
        (["simulate", "-events", "/nowhere"], {}, "flag -events: cannot read /nowhere: No such file or directory"),
        (["simulate", "-port=65535", "-nodes=2"], {}, "flag -nodes: 2 nodes from port 65535 on need ports above 65535"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(
    arguments: list[str], variables: dict[str, str], text: str
) -> None:
    run = finished(*arguments, **variables)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"relay: {text}")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["-nodes=a:1", "-gRPCPort"], ["simulate", "-bind=", "-port"]])
def test_a_port_in_use_is_said_in_one_line_with_exit_code_2(relay: Relay, arguments: list[str]) -> None:
    run = finished(*arguments, str(relay.port))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"relay: cannot listen on [::]:{relay.port}: the port is in use")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("program", ["relay", "kubearmor-relay-server"])
def test_both_names_are_installed(program: str) -> None:
    run = subprocess.run([str(PROGRAM.parent / program), "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"relay {__version__}\n"


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_both_families_are_served(relay: Relay, family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as client:
        client.connect((host, relay.port))


def test_one_address_is_served_when_it_is_asked_for() -> None:
    with Relay("-bind", "127.0.0.1") as relay, socket.socket(socket.AF_INET6) as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(("::1", relay.port))
        with socket.socket() as other:
            other.connect(("127.0.0.1", relay.port))


def test_the_limit_on_open_files_is_raised() -> None:
    with Relay(program=("sh", "-c", 'ulimit -Sn 256; exec "$0" "$@"', str(PROGRAM))) as relay:
        limits = Path(f"/proc/{relay.pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert (soft, int(hard) > 256) == (hard, True)


def test_a_serving_relay_carries_neither_grpcio_nor_protobuf(relay: Relay) -> None:
    mapped = Path(f"/proc/{relay.pid}/maps").read_text()
    assert "_fastpath" in mapped
    assert "cygrpc" not in mapped
    assert "google/_upb" not in mapped


# --- signals ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_the_counters_and_exit_code_0(relay: Relay, number: signal.Signals) -> None:
    assert relay.end(number) == 0
    (ending,) = relay.logged("ending")
    assert ending["reason"] == number.name
    (counters,) = relay.logged("counters")
    assert set(counters) >= {"level", "ts", "caller", "feeds", "nodes", "subscribers", "process"}


def test_a_subscriber_gets_what_there_is_before_the_end() -> None:
    sent = events.events(LOGS, 500)
    with (
        Node() as node,
        Relay(nodes=(node.port,)) as relay,
        channel(relay.port) as over,
        Subscriber(over, LOGS).ready() as subscriber,
    ):
        node.wait_open(LOGS)
        node.send(LOGS, *sent)
        assert subscriber.take(1) == sent[:1]
        relay.send(signal.SIGTERM)
        received = sent[:1] + subscriber.rest()
        assert subscriber.code() is grpc.StatusCode.UNAVAILABLE
        assert relay.wait() == 0
        (counters,) = relay.logged("counters")
        assert received == sent[: len(received)]
        assert counters["feeds"]["logs"]["received"] == len(received)
        (told,) = counters["subscribers"]
        assert (told["feed"], told["delivered"], told["lost"]) == ("logs", len(received), 0)


def test_usr1_tells_all_counters_in_one_line_whatever_the_log_level() -> None:
    with (
        Node() as node,
        Relay("-log-level", "debug", nodes=(node.port,)) as relay,
        channel(relay.port) as over,
        Subscriber(over, LOGS, "system").ready() as subscriber,
    ):
        node.wait_open(LOGS)
        node.send(LOGS, *events.events(LOGS, 3))
        subscriber.take(3)
        counters = relay.counters()
        assert (counters["level"], counters["msg"]) == ("info", "counters")
        assert set(counters["feeds"]) == {"messages", "alerts", "logs"}
        logs = counters["feeds"]["logs"]
        assert (logs["received"], logs["first"], logs["next"]) == (3, 0, 3)
        assert logs["bytes"] > 0
        (about,) = counters["nodes"]
        assert (about["node"], about["state"]) == (f"{HOST}:{node.port}", "streaming")
        assert (about["received"]["logs"], about["reconnects"], about["last_error"]) == (3, 0, "")
        (told,) = counters["subscribers"]
        assert (told["feed"], told["filter"], told["delivered"], told["lost"]) == ("logs", "system", 3, 0)
        assert (told["filtered"], told["behind"]) == (0, 0)
        process = counters["process"]
        assert process["connections"] >= 2
        assert set(process["limits"].values()) == {0}
        assert 0 < process["rss"] <= process["rss_peak"]


def test_every_counter_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    with (
        Node() as node,
        Relay(nodes=(node.port,)) as relay,
        channel(relay.port) as over,
        Subscriber(over, LOGS).ready(),
    ):
        node.wait_open(LOGS)
        missing = {name for name in names(relay.counters()) if f"`{name}`" not in text}
    assert missing - {"feeds", "logs", "alerts", "messages"} == set()


def names(values: object) -> Iterator[str]:
    """All keys of nested dictionaries and lists."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield name
            yield from names(value)
    elif isinstance(values, list):
        for value in values:
            yield from names(value)


def test_usr1_is_answered_at_log_level_error() -> None:
    port = free_port()
    with Command("-nodes", f"{HOST}:1", "-gRPCPort", str(port), "-log-level", "error") as command:
        # Nothing is logged at the start, so the open port is the sign that signals are handled soon.
        while True:
            with socket.socket() as client:
                if client.connect_ex((HOST, port)) == 0:
                    break
        with channel(port) as over:
            health_pb2_grpc.HealthStub(over).Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
        assert command.counters()["msg"] == "counters"
        assert command.end() == 0
        assert {json.loads(line)["msg"] for line in command.log} == {"counters"}


def test_a_second_signal_ends_at_once() -> None:
    """The stalled subscriber would hold up the graceful end until its deadline."""
    large = events.events(LOGS, 64, size=1 << 20)
    with Node() as node, Relay(nodes=(node.port,), program=PATIENT) as relay, socket.socket() as stalled:
        stall(stalled, relay.port)
        relay.line("subscriber started")
        node.wait_open(LOGS)
        node.send(LOGS, *large)
        while relay.counters()["feeds"]["logs"]["received"] < len(large):
            pass
        relay.send(signal.SIGTERM)
        relay.line("ending")
        relay.send(signal.SIGTERM)
        assert relay.wait() == 128 + signal.SIGTERM
        assert len(relay.logged("second signal: ending at once")) == 1
        # It did not just wait until the stalled subscriber was found out.
        assert relay.logged("counters")[-1]["process"]["limits"]["keepalive"] == 0


def stall(client: socket.socket, port: int) -> None:
    """Subscribe to logs and never read."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((HOST, port))
    http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    http.initiate_connection()
    http.increment_flow_control_window(1 << 30)
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "relay",
        ":path": "/feeder.LogService/WatchLogs",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    http.send_headers(1, list(headers.items()))
    http.send_data(1, events.frame(events.request()), end_stream=True)
    http.increment_flow_control_window(1 << 30, 1)
    client.sendall(http.data_to_send())


def test_a_part_that_fails_ends_the_process_with_a_reason_and_exit_code_1() -> None:
    program = (
        "import sys, relay.services as s\n"
        "def fail(self, report): raise RuntimeError('a defect')\n"
        "s.Services.on_call = fail\n"
        "from relay.cli import main\n"
        "sys.exit(main())"
    )
    with Relay(program=(sys.executable, "-c", program)) as relay, channel(relay.port) as over:
        with pytest.raises(grpc.RpcError):
            health_pb2_grpc.HealthStub(over).Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
        assert relay.wait() == 1
        (ending,) = relay.logged("ending")
        assert ending["level"] == "error"
        assert "a defect" in ending["reason"]
        assert len(relay.logged("counters")) == 1


def test_a_closed_standard_error_ends_nothing() -> None:
    port = free_port()
    reading, writing = os.pipe()
    arguments = [str(PROGRAM), "-nodes", f"{HOST}:1", "-gRPCPort", str(port), "-log-level", "debug"]
    process = subprocess.Popen(arguments, stderr=writing, env=environment())
    try:
        os.close(writing)
        os.read(reading, 1)  # it has begun to log
        os.close(reading)
        with channel(port) as over:
            stub = health_pb2_grpc.HealthStub(over)
            stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT, wait_for_ready=True)
            process.send_signal(signal.SIGUSR1)
            stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
        process.terminate()
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.wait(WAIT)


# --- nodes --------------------------------------------------------------------------------


def test_a_node_that_restarts_is_found_again_and_its_subscriber_stays() -> None:
    before, after = events.events(LOGS, 3), events.events(LOGS, 3, start=3)
    with (
        Node() as node,
        Relay(nodes=(node.port,)) as relay,
        channel(relay.port) as over,
        Subscriber(over, LOGS).ready() as subscriber,
    ):
        relay.line("node connected")
        node.send(LOGS, *before)
        assert subscriber.take(3) == before
        node.stop()
        relay.line("node disconnected")
        with Node(port=node.port) as again:
            again.wait_open(LOGS)
            again.send(LOGS, *after)
            assert subscriber.take(3) == after
            (about,) = relay.counters()["nodes"]
            assert (about["state"], about["reconnects"]) == ("streaming", 1)
            assert about["last_error"] != ""


def test_a_name_that_does_not_resolve_is_told_and_tried_again() -> None:
    with Node() as node, Relay("-nodes", f"no-such-host.invalid:1,{HOST}:{node.port}") as relay:
        failure = relay.line("node cannot be reached")
        assert failure["node"] == "no-such-host.invalid:1"
        assert failure["error"].startswith("cannot resolve no-such-host.invalid: ")
        node.wait_open(LOGS)  # the other node is not held up
        assert relay.end() == 0


def test_a_name_is_resolved() -> None:
    with Node() as node, Relay("-nodes", f"localhost:{node.port}") as relay:
        assert relay.line("node connected")["address"] == HOST


def test_a_node_that_cannot_be_reached_is_tried_until_it_can() -> None:
    port = free_port()
    with Relay(nodes=(port,)) as relay:
        assert relay.line("node cannot be reached")["times"] == 1
        with Node(port=port) as node:
            relay.line("node connected")
            node.wait_open(LOGS)


def test_a_node_that_lacks_a_method_keeps_the_others() -> None:
    with Node(unimplemented=(MESSAGES,)) as node, Relay(nodes=(node.port,)) as relay:
        lacking = relay.line("node lacks a feed")
        assert (lacking["node"], lacking["feed"]) == (f"{HOST}:{node.port}", "messages")
        node.wait_open(LOGS)
        node.wait_open(ALERTS)


def test_an_ended_feed_is_opened_again_alone() -> None:
    with Node() as node, Relay(nodes=(node.port,)) as relay:
        for feed in events.FEEDS:
            node.wait_open(feed)
        node.end(ALERTS, grpc.StatusCode.INTERNAL, "broken")
        node.wait_open(ALERTS, 2)
        assert "broken" in relay.line("feed of a node ended")["error"]
        assert [len(node.filters[feed]) for feed in events.FEEDS] == [1, 2, 1]


# --- what Python answers ------------------------------------------------------------------


def test_health_turns_to_not_serving_at_the_end() -> None:
    status = health_pb2.HealthCheckResponse
    with Relay(program=PATIENT) as relay, channel(relay.port) as over:
        stub = health_pb2_grpc.HealthStub(over)
        for service in ("", "feeder.LogService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT).status == status.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=WAIT)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == status.SERVING
        relay.send(signal.SIGTERM)
        assert next(watch).status == status.NOT_SERVING
        with pytest.raises(grpc.RpcError) as ended:
            next(watch)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert relay.wait() == 0


def test_reflection_describes_the_services(relay: Relay) -> None:
    with channel(relay.port) as over:
        database = ProtoReflectionDescriptorDatabase(over)
        assert "feeder.LogService" in list(database.get_services())
        file = database.FindFileContainingSymbol("feeder.LogService")
        assert [method.name for method in file.service[0].method] == [
            "HealthCheck",
            "WatchMessages",
            "WatchAlerts",
            "WatchLogs",
        ]


# --- observe ------------------------------------------------------------------------------


def test_observe_prints_json_up_to_its_limit() -> None:
    with (
        Node() as node,
        Relay(nodes=(node.port,)) as relay,
        Command("observe", "alerts", "--json", "--limit=2", "--server", f"{HOST}:{relay.port}") as observer,
    ):
        relay.line("subscriber started")
        node.wait_open(ALERTS)
        node.send(ALERTS, *events.events(ALERTS, 3))
        lines = [observer.printed() for _ in range(3)]
        assert lines[2] is None
        assert [json.loads(line or "")["UpdatedTime"] for line in lines[:2]] == [f"{n:020d}" for n in range(2)]
        assert observer.wait() == 0
        assert observer.log == ["relay observe: 2 alerts seen"]


def test_observe_reconnects_and_ends_cleanly_on_ctrl_c() -> None:
    port = free_port()
    with Node() as node, Command("observe", "--server", f"{HOST}:{port}") as observer:
        assert "trying again" in observer.line(lambda _: True)["text"]
        for turn in range(2):
            with Relay(port=port, nodes=(node.port,)) as relay:
                relay.line("subscriber started")
                node.wait_open(LOGS, turn + 1)
                node.send(LOGS, events.event(LOGS, turn))
                line = observer.printed()
                assert line is not None
                assert "node" in line
                assert "\x1b" not in line
                assert relay.end() == 0
        assert observer.end(signal.SIGINT) == 0
        assert observer.log[-1] == "relay observe: 2 logs seen"
        assert not any("Traceback" in line for line in observer.log)


def test_observe_prints_colours_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with Node() as node, Relay(nodes=(node.port,)) as relay, os.fdopen(ours, "rb", buffering=0) as screen:
        address = f"{HOST}:{relay.port}"
        with (
            os.fdopen(theirs, "w") as terminal,
            Command("observe", "--limit=1", "--server", address, output=terminal) as observer,
        ):
            relay.line("subscriber started")
            node.wait_open(LOGS)
            node.send(LOGS, events.event(LOGS))
            assert observer.wait() == 0
            assert screen.read(4096).startswith(b"\x1b[")


def test_observe_gives_up_on_an_answer_that_will_not_change(relay: Relay) -> None:
    run = finished("observe", "--server", f"{HOST}:{relay.port}", "--filter", "no such filter")
    assert run.returncode == 1
    first, last = run.stderr.splitlines()
    assert first.startswith("relay observe: INVALID_ARGUMENT: ")
    assert last == "relay observe: 0 logs seen"


def test_observe_ends_quietly_when_its_reader_goes() -> None:
    reading, writing = os.pipe()
    with Node() as node, Relay(nodes=(node.port,)) as relay:
        address = f"{HOST}:{relay.port}"
        with os.fdopen(writing, "w") as pipe, Command("observe", "--server", address, output=pipe) as observer:
            relay.line("subscriber started")
            node.wait_open(LOGS)
            os.close(reading)
            node.send(LOGS, *events.events(LOGS, 3))
            assert observer.wait() == 0
            assert observer.log == ["relay observe: 0 logs seen"]


def test_help_ends_quietly_when_its_reader_goes() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, Command("--help", output=pipe) as command:
        assert command.wait() == 0
        assert command.log == []


# --- simulate -----------------------------------------------------------------------------


def simulated(count: int, *arguments: str) -> list[str]:
    """What an observer of a simulated node sees."""
    port = free_port()
    with Command("simulate", "-port", str(port), "-count", str(count * 2), *arguments) as node:
        assert node.printed() is not None
        run = finished("observe", "--json", f"--limit={count}", "--server", f"{HOST}:{port}")
        assert run.returncode == 0
        return run.stdout.splitlines()


def test_a_simulated_node_says_the_same_with_the_same_seed() -> None:
    first = simulated(50, "-rate=0", "-seed=5")
    assert len(first) == 50
    assert simulated(50, "-rate=2000", "-seed=5") == first
    assert simulated(50, "-rate=0", "-seed=6") != first


def test_a_simulated_node_plays_a_file(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"HostName": "a"}\n{"Level": "INFO"}\n{"HostName": "b"}\n')
    lines = simulated(4, "-events", str(file), "-rate=0")
    assert [json.loads(line)["HostName"] for line in lines] == ["a", "b", "a", "b"]


def test_simulated_nodes_send_all_their_events_through_a_relay() -> None:
    first = free_port(following=2)
    with Relay(nodes=(first, first + 1, first + 2)) as relay, channel(relay.port) as over:
        subscribers = [Subscriber(over, feed).ready() for feed in events.FEEDS]
        with Command("simulate", "-port", str(first), "-nodes=3", "-count=1000", "-rate=0", program=()) as nodes:
            assert json.loads(nodes.printed() or "")["nodes"] == 3
            told = json.loads(nodes.printed() or "")
            assert told["lost"] == 0
            for feed, subscriber in enumerate(subscribers):
                taken = subscriber.take(told["published"][events.NAMES[feed]])
                assert len(taken) > 0
                subscriber.cancel()
            assert nodes.wait() == 0


def test_simulated_nodes_wait_for_their_word() -> None:
    port = free_port()
    arguments = ("simulate", "-wait", "-count=100", "-rate=0", "-port", str(port))
    with Command(*arguments) as node:
        assert node.printed() is not None
        with channel(port) as over, Subscriber(over, ALERTS).ready() as subscriber:
            assert node.end() == 0
            assert subscriber.rest() == []
    with Command(*arguments) as node:
        assert node.printed() is not None
        with channel(port) as over, Subscriber(over, ALERTS).ready() as subscriber:
            node.say()
            taken = len(subscriber.rest())
            assert taken > 0
            assert node.wait() == 0
            # What nobody listened to was not sent.
            assert json.loads(node.printed() or "")["published"] == {"messages": 0, "alerts": taken, "logs": 0}


def test_a_signal_ends_simulated_nodes_in_the_middle_of_their_play() -> None:
    port = free_port()
    with Command("simulate", "-rate=1000", "-port", str(port)) as node:
        assert node.printed() is not None
        with channel(port) as over, Subscriber(over, ALERTS).ready() as subscriber:
            subscriber.take(1)
            assert node.end() == 0
        assert node.log == []


# --- demo ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["500", "5000"])
def test_the_demo_shows_events_and_loses_none(rate: str) -> None:
    run = finished("demo", "--seconds", "1", "--rate", rate)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = {line.split("  ")[1]: line.split()[-4:] for line in run.stdout.splitlines() if line.startswith("  ")}
    counts = {name: [int(cell.replace(",", "")) for cell in rows[name]] for name in ("in", "delivered", "lost")}
    assert counts["in"] == counts["delivered"]
    assert min(counts["in"]) > 0
    assert counts["lost"] == [0, 0, 0, 0]
    for feed in events.NAMES:
        assert f"\n{feed}:\n" in run.stdout
    assert "CPU of the relay: " in run.stdout
    assert "memory of the relay: " in run.stdout
