"""Promise: python-socketio's AsyncClient, which is aiohttp underneath, does what the other one does."""

import asyncio

import pytest
import socketio
from service import PATIENCE_S, Service

#: By polling, this client's disconnect() now and then leaves before it has sent its close packet (its writer ends when
#: the state changes), and then waits for its parked GET: until the next ping, whatever the server.
SETTINGS = {"PING_INTERVAL_MS": "2000"}
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": None}


class Peer:
    @classmethod
    async def connect(cls, url, transport="websocket", reconnection=False):
        self = cls()
        self.client = socketio.AsyncClient(
            reconnection=reconnection, reconnection_delay=0.1, reconnection_delay_max=0.2
        )
        self.events = {name: asyncio.Queue() for name in ["ready", "response", "chat_message", "disconnect"]}
        for name, events in self.events.items():
            self.client.on(name, events.put)
        await self.client.connect(url, transports=TRANSPORTS[transport], wait_timeout=PATIENCE_S)
        return self

    async def next(self, event):
        return await asyncio.wait_for(self.events[event].get(), PATIENCE_S)

    async def ask(self, event, data):
        return await self.client.call(event, data, timeout=PATIENCE_S)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connects_talks_and_sends_bytes(service, transport):
    async def scenario():
        one = await Peer.connect(service.url, transport)
        ready = await one.next("ready")
        assert (ready["sid"], ready["protocol"]) == (one.client.get_sid(), 1)
        for value in ["é漢字😀", {"a": [1, None]}, None, b"\x00\xff", {"file": [b"abc", b""], "n": 1}]:
            assert await one.ask("message", value) == {"ok": True}
            assert await one.next("response") == {"data": value}
        await one.client.disconnect()

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ten_clients_share_a_room_and_its_order(service, transport):
    async def scenario():
        meeting = f"async-{transport}"
        peers = await asyncio.gather(*(Peer.connect(service.url, transport) for _ in range(10)))
        for peer in peers:
            assert (await peer.ask("join_room", {"meeting_id": meeting}))["ok"] is True
        acks = await asyncio.gather(
            *(peer.ask("chat_message", {"meeting_id": meeting, "text": f"{n}"}) for n, peer in enumerate(peers))
        )
        assert sorted(ack["seq"] for ack in acks) == list(range(1, 11))
        heard = [[await peer.next("chat_message") for _ in acks] for peer in peers]
        assert [event["seq"] for event in heard[0]] == list(range(1, 11))
        assert all(events == heard[0] for events in heard)
        await asyncio.gather(*(peer.client.disconnect() for peer in peers))

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_comes_back_after_a_restart(transport):
    async def scenario(service):
        one = await Peer.connect(service.url, transport, reconnection=True)
        first = await one.next("ready")
        service.kill()
        await one.next("disconnect")
        with await asyncio.to_thread(Service, port=service.port, **SETTINGS):
            second = await one.next("ready")
            assert second["sid"] == one.client.get_sid() != first["sid"]
            assert await one.ask("message", "again") == {"ok": True}
            await one.client.disconnect()

    service = Service(**SETTINGS)
    try:
        asyncio.run(scenario(service))
    finally:
        service.kill()
