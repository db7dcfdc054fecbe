"""Peers whose host goes away without a word: no FIN, no RST, no answer."""

import socket
import time

import pytest
from peers import events, h2_client, h2_node, netns
from peers.command import PROGRAM, Relay

from relay import feeds

LOGS, ALERTS = events.LOGS, events.ALERTS


def test_vanished_subscribers_and_nodes_are_found() -> None:
    """Subscribers within 15 s, whether events flow or not, and nodes within 20 s: the bounds that the design sets."""
    if netns.missing():
        pytest.skip(netns.missing())
    with netns.Cable() as cable:
        near = h2_node.Node(listener=cable.near.socket(lambda: socket.create_server(("127.0.0.1", 0))))
        far = h2_node.Node(listener=cable.far.socket(lambda: socket.create_server((cable.far.address, 0))))
        far_name = f"{cable.far.address}:{far.port}"
        places = f"-nodes=127.0.0.1:{near.port},{far_name}"
        with near, far, Relay(places, program=cable.near.program(str(PROGRAM))) as relay:
            near_wire, far_wire = near.accept(), far.accept()
            near_wire.stream(LOGS)
            far_wire.stream(LOGS)

            def subscribe(feed: int) -> h2_client.Client:
                where = (cable.near.address, relay.port)
                wire = h2_client.Client(0, sock=cable.far.socket(lambda: socket.create_connection(where)))
                stream = wire.call(feeds.METHODS[feed], events.request())
                wire.wait(lambda wire: wire.streams[stream].headers, "headers")
                return wire

            silent, busy = subscribe(ALERTS), subscribe(LOGS)
            assert len(relay.counters()["subscribers"]) == 2
            near_wire.say(LOGS, events.frames(events.events(LOGS, 10)))
            busy.wait_messages(1, 10)
            cable.unplug()
            began = time.monotonic()
            gone: dict[str, float] = {}
            while len(gone) < 3 and time.monotonic() - began < 30:
                # Events go on, so that one subscriber has something under way at all times.
                near_wire.say(LOGS, events.frames(events.events(LOGS, 10)))
                counters = relay.counters()
                there = {subscriber["feed"] for subscriber in counters["subscribers"]}
                there |= {node["node"] for node in counters["nodes"] if node["state"] == "streaming"}
                for name in ("alerts", "logs", far_name):
                    if name not in there:
                        gone.setdefault(name, time.monotonic() - began)
                time.sleep(0.2)  # the pace of the events
            assert gone.keys() == {"alerts", "logs", far_name}, gone
            assert max(gone["alerts"], gone["logs"]) < 15, gone
            assert gone[far_name] < 22, gone  # asked five times a second, and the counters take a moment
            (lost,) = (node for node in relay.counters()["nodes"] if node["node"] == far_name)
            assert "timed out" in lost["last_error"], lost  # nobody reset anything
            assert [node["state"] for node in relay.counters()["nodes"]].count("streaming") == 1
            for wire in (silent, busy):
                wire.close()
            assert relay.end() == 0
