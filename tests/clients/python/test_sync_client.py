"""Promise: python-socketio's Client connects, talks, sends bytes, shares rooms and comes back."""

import queue

import pytest
import socketio
from service import PATIENCE_S, Service, eventually

#: By polling, this client's disconnect() now and then leaves before it has sent its close packet (its writer ends when
#: the state changes), and then waits for its parked GET: until the next ping, whatever the server.
SETTINGS = {"PING_INTERVAL_MS": "2000"}
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": None}
VALUES = ["é漢字😀", 0, -1.5, True, None, [], {"a": [1, {"b": None}]}, b"\x00\xff", {"file": b"abc", "n": [b"", "x"]}]


class Peer:
    """A client and what it was sent: a queue for each event."""

    def __init__(self, url, transport="websocket", reconnection=False):
        self.client = socketio.Client(reconnection=reconnection, reconnection_delay=0.1, reconnection_delay_max=0.2)
        self.events = {name: queue.Queue() for name in ["ready", "response", "chat_message", "disconnect"]}
        for name, events in self.events.items():
            self.client.on(name, events.put)
        self.client.connect(url, transports=TRANSPORTS[transport], wait_timeout=PATIENCE_S)

    def next(self, event):
        return self.events[event].get(timeout=PATIENCE_S)

    def ask(self, event, data):
        return self.client.call(event, data, timeout=PATIENCE_S)


@pytest.fixture
def peer(service):
    peers = []

    def connect(*args, **kwargs):
        peers.append(Peer(service.url, *args, **kwargs))
        return peers[-1]

    yield connect
    for each in peers:
        each.client.disconnect()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connects_and_is_told_ready(peer, transport):
    one = peer(transport)
    ready = one.next("ready")
    assert (ready["sid"], ready["user_id"], ready["protocol"]) == (one.client.get_sid(), one.client.get_sid(), 1)
    assert one.client.get_sid() != one.client.eio.sid
    assert one.client.transport() == ("polling" if transport == "polling" else "websocket")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
def test_message_comes_back_with_an_ack(peer, transport, value):
    one = peer(transport)
    assert one.ask("message", value) == {"ok": True}
    assert one.next("response") == {"data": value}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_two_clients_share_a_room(peer, transport):
    one, two = peer(transport), peer()
    meeting = f"sync-{transport}"
    for member in (one, two):
        assert member.ask("join_room", {"room": meeting})["ok"] is True
    for seq, (sender, text) in enumerate([(one, "hello"), (two, "<b>é</b>"), (one, "bye")], start=1):
        ack = sender.ask("chat_message", {"room": meeting, "message": text})
        assert (ack["ok"], ack["seq"]) == (True, seq)
        for member in (one, two):
            event = member.next("chat_message")
            got = (event["id"], event["text"], event["sender"], event["seq"], event["meeting_id"])
            assert got == (ack["id"], text, sender.client.get_sid(), seq, meeting)
    assert one.ask("leave_room", meeting) == {"ok": True, "meeting_id": meeting}
    assert one.ask("chat_message", {"room": meeting, "message": "x"})["error"]["code"] == "not_joined"


def test_a_hundred_messages_all_come_back(peer):
    """In any order: this client runs each handler in a thread of its own."""
    one = peer()
    for n in range(100):
        one.client.emit("message", n)
    assert sorted(one.next("response")["data"] for _ in range(100)) == list(range(100))


def test_messages_by_polling_all_come_back(peer):
    """Ten at a time, over and over."""
    one = peer("polling")
    for first in range(0, 100, 10):
        for n in range(first, first + 10):
            one.client.emit("message", n)
        assert sorted(one.next("response")["data"] for _ in range(10)) == list(range(first, first + 10))


def test_disconnects(peer, service):
    before = service.metric("chat_sessions")
    one = peer("polling")
    one.next("ready")
    assert service.metric("chat_sessions") == before + 1
    one.client.disconnect()

    def gone():
        assert service.metric("chat_sessions") <= before

    eventually(gone)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_comes_back_after_a_restart(transport):
    service = Service(**SETTINGS)
    try:
        one = Peer(service.url, transport, reconnection=True)
        first = one.next("ready")
        service.kill()
        one.next("disconnect")
        with Service(port=service.port, **SETTINGS):
            second = one.next("ready")
            assert (second["sid"], second["sid"] != first["sid"]) == (one.client.get_sid(), True)
            assert second["instance"] != first["instance"]
            assert one.ask("message", "again") == {"ok": True}
            one.client.disconnect()
    finally:
        service.kill()
