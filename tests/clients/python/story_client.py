"""Devices of a story (see service/story.test.mjs) that are python-socketio clients, sync and async ones.

Not a test: the node side starts it with its part of the cast as JSON in the first argument, and tells it by lines on
stdin when to stop talking (`stop`), when all that was said must be here (`settle`) and when to go (`leave`). It answers
on stdout by lines of JSON: phases, and at the end everything that each device has seen.
"""

import asyncio
import json
import random
import socket
import struct
import sys
import threading
from itertools import count

import aiohttp
import engineio
import requests
import socketio
import urllib3

TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": None}
LOGGED = {"chat_message", "message_edited", "message_deleted", "message_reaction", "meeting_update"}
EMOJI = ["👍", "🎉", "❤️"]
#: A connection that lives, and no ack for so long: a fault, on the slowest machine.
SILENCE_S = 90
#: Seconds that a connect or the notice of a cut may take before the client is given up.
PATIENCE_S = 20


# Both libraries start a task or a thread for each packet. Threads overtake each other: an application that wants to see
# an order must have packets handled where they are read.


def in_order(event, options):
    return options | {"run_async": False} if event == "message" else options


class InOrder(engineio.Client):
    def _trigger_event(self, event, *args, **options):
        return super()._trigger_event(event, *args, **in_order(event, options))


class AsyncInOrder(engineio.AsyncClient):
    async def _trigger_event(self, event, *args, **options):
        return await super()._trigger_event(event, *args, **in_order(event, options))


class SyncClient(socketio.Client):
    def _engineio_client_class(self):
        return InOrder


class AsyncClient(socketio.AsyncClient):
    def _engineio_client_class(self):
        return AsyncInOrder


class SyncWire:
    """One connection of a sync client, which can be cut."""

    def __init__(self, device):
        self.sockets = []
        self.client = SyncClient(reconnection=False, http_session=self._session(), handle_sigint=False)
        device.listen(self, self.client)

    def _session(self):
        sockets = self.sockets

        class Connection(urllib3.connection.HTTPConnection):
            def connect(self):
                super().connect()
                sockets.append(self.sock)

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        session = requests.Session()
        adapter = requests.adapters.HTTPAdapter()
        adapter.poolmanager.pool_classes_by_scheme = {"http": Pool}
        session.mount("http://", adapter)
        return session

    async def connect(self, url, token, transport):
        connect = self.client.connect
        options = {"auth": {"token": token}, "transports": TRANSPORTS[transport], "wait_timeout": PATIENCE_S}
        await asyncio.to_thread(connect, url, **options)

    async def emit(self, event, payload, answered):
        self.client.emit(event, payload, callback=answered)

    def cut(self, _reset):
        web_socket = getattr(self.client.eio, "ws", None)
        for each in [*self.sockets, getattr(web_socket, "sock", None)]:
            try:
                # Unlike a close, this wakes the thread that reads.
                each and each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    async def disconnect(self):
        await asyncio.to_thread(self.client.disconnect)

    async def close(self):
        self.cut(True)


class AsyncWire:
    """One connection of an async client, which can be cut."""

    def __init__(self, device):
        self.connector = aiohttp.TCPConnector(force_close=True)
        self.session = aiohttp.ClientSession(connector=self.connector)
        # A poll whose connection broke is not to be repeated: what its answer held would be missing.
        self.session._retry_connection = False
        self.client = AsyncClient(reconnection=False, http_session=self.session, handle_sigint=False)
        device.listen(self, self.client)

    async def connect(self, url, token, transport):
        connect = self.client.connect
        options = {"auth": {"token": token}, "transports": TRANSPORTS[transport], "wait_timeout": PATIENCE_S}
        await connect(url, **options)

    async def emit(self, event, payload, answered):
        await self.client.emit(event, payload, callback=answered)

    def cut(self, reset):
        for protocol in list(self.connector._acquired):
            transport = getattr(protocol, "transport", None)
            if transport is None:
                continue
            if reset:
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()

    async def disconnect(self):
        await self.client.disconnect()

    async def close(self):
        await self.session.close()


class Room:
    def __init__(self):
        self.position = None
        self.is_member = self.is_wanted = self.is_busy = False
        #: While a hole is being filled: where it ends, and the last live event behind it.
        self.upto = self.live = None


class Device:
    def __init__(self, cast, loop):
        self.name, self.user, self.token = cast["name"], cast["user"], cast["token"]
        self.url, self.transport, self.kind = cast["url"], cast["transport"], cast["kind"]
        self.meetings, self.users = cast["meetings"], cast["users"]
        self.random = random.Random(f"{cast['seed']} {self.name}")
        self.loop = loop
        self.records, self.rooms, self.seen, self.unacked, self.pending = [], {}, {}, {}, {}
        #: Sync clients read in a thread of their own: what was seen and what was written down go together.
        self.lock = threading.RLock()
        self.asks, self.messages, self.acts = count(1), count(1), 0
        self.wire, self.is_connected, self.is_stopping = None, False, False
        self.came, self.went = asyncio.Event(), asyncio.Event()
        for meeting in self.random.sample(self.meetings, min(self.random.randint(2, 5), len(self.meetings))):
            self.room(meeting).is_wanted = True

    def room(self, meeting):
        return self.rooms.setdefault(meeting, Room())

    def listen(self, wire, client):
        def connected():
            with self.lock:
                if wire is self.wire:
                    self.is_connected = True
                    self.records.append({"connected": client.get_sid()})

        def gone(reason):
            self.gone(wire, str(reason))

        def heard(event, *args):
            with self.lock:
                # An application that has taken leave of a connection does not listen to it.
                if wire is self.wire and self.is_connected:
                    self.heard(event, args[0] if args else None)

        client.on("connect", connected)
        client.on("disconnect", gone)
        client.on("*", heard)

    def gone(self, wire, reason):
        with self.lock:
            if wire is not self.wire:
                return
            self.wire = None
            if self.is_connected:
                self.records.append({"gone": reason})
            self.is_connected = False
            for room in self.rooms.values():
                room.is_member, room.upto = False, None
            pending, self.pending = self.pending, {}
        for future in pending.values():
            self.resolve(future, None)
        self.loop.call_soon_threadsafe(self.went.set)

    def resolve(self, future, answer):
        self.loop.call_soon_threadsafe(lambda: future.done() or future.set_result(answer))

    def heard(self, event, payload):
        self.records.append({"event": event, "payload": payload})
        if event in LOGGED:
            room = self.room(payload["meeting_id"])
            if room.upto is None:
                room.position = {"epoch": payload["epoch"], "seq": payload["seq"]}
            else:
                room.live = payload["seq"]
            self.note({"event": event, **payload})

    def note(self, event):
        if event["event"] == "chat_message":
            seen = self.seen.setdefault(event["meeting_id"], [])
            seen.append((event["id"], event["sender"]))
            del seen[:-30]

    async def ask(self, event, payload, take=lambda answer: None):
        """The answer, or None if the connection was lost before. `take` sees it before any later event."""
        future = self.loop.create_future()
        with self.lock:
            wire, n = self.wire, next(self.asks)
            if not self.is_connected:
                return None
            payload = json.loads(json.dumps(payload() if callable(payload) else payload))
            self.records.append({"ask": event, "n": n, "payload": payload})
            self.pending[n] = future

            def answered(answer=None):
                with self.lock:
                    if wire is not self.wire or self.pending.pop(n, None) is None:
                        return
                    self.records.append({"ack": n, "answer": answer})
                    if answer and answer.get("ok"):
                        take(answer)
                self.resolve(future, answer)

            try:
                await wire.emit(event, payload, answered)
            except (socketio.exceptions.SocketIOError, OSError, AttributeError):
                # It is being closed; whether it went out, nobody knows.
                pass
        try:
            return await asyncio.wait_for(asyncio.shield(future), SILENCE_S)
        except TimeoutError:
            self.records.append({"silence": event, "n": n})
            return None

    async def join(self, meeting, limit=None, is_new=False):
        room = self.room(meeting)

        def payload():
            since = None if is_new else room.position
            fields = {"meeting_id": meeting, "since": since, "limit": limit}
            return {name: value for name, value in fields.items() if value is not None}

        def joined(ack):
            for event in ack.get("events") or []:
                self.note(event)
            if room.is_member:
                return
            room.is_member = True
            if ack.get("recovered") is False:
                room.upto = room.live = ack["seq"]
            else:
                room.position = {"epoch": ack["epoch"], "seq": ack["seq"]}

        def paged(page):
            if room.upto is None:
                return
            last = page["items"][-1]["seq"] if page["items"] else 0
            if page["first_seq"] > room.upto:
                last = room.upto
            seq = max(room.position["seq"], min(last, room.upto))
            if seq == room.upto:
                seq, room.upto = room.live, None
            room.position = {"epoch": page["epoch"], "seq": seq}

        ack = await self.ask("join_room", payload, joined)
        if not ack or not ack.get("ok"):
            return
        while room.upto is not None:
            query = lambda: {"meeting_id": meeting, "after_seq": room.position["seq"], "limit": 100}  # noqa: E731
            if not await self.ask("get_history", query, paged):
                return

    async def alone(self, meeting, act):
        """One thing at a time with a meeting's membership."""
        room = self.room(meeting)
        if room.is_busy:
            return
        room.is_busy = True
        try:
            await act(room)
        finally:
            room.is_busy = False

    async def connect(self):
        """Connects, with a new client as an application does that was started again."""
        wire = SyncWire(self) if self.kind == "sync" else AsyncWire(self)
        with self.lock:
            self.wire = wire
        self.went.clear()
        try:
            await asyncio.wait_for(wire.connect(self.url, self.token, self.transport), 2 * PATIENCE_S)
        except (socketio.exceptions.ConnectionError, OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
            # Cut while it connected. A refusal by the service says so.
            if "unauthorized" in str(error):
                self.records.append({"refused": str(error)})
            self.gone(wire, "connect")
            await wire.close()
            return
        try:
            await self.resume()
            await self.went.wait()
        finally:
            await wire.close()

    async def resume(self):
        for meeting, room in list(self.rooms.items()):
            while room.is_busy:
                await asyncio.sleep(0.005)
            if room.is_wanted and not room.is_member:
                await self.alone(meeting, lambda _, meeting=meeting: self.join(meeting))
        await self.send_again()

    async def send_again(self):
        for message in list(self.unacked.values()):
            if self.room(message["meeting_id"]).is_member:
                await self.send(message)

    async def send(self, message):
        self.unacked[message["client_id"]] = message
        if await self.ask("chat_message", message):
            self.unacked.pop(message["client_id"], None)

    async def stay_connected(self):
        while True:
            await self.connect()
            await asyncio.sleep(self.random.uniform(0.05, 0.4))

    async def run(self):
        self.staying = asyncio.create_task(self.stay_connected())
        self.cutting = asyncio.create_task(self.be_cut())
        background = set()
        while not self.is_stopping:
            await asyncio.sleep(self.random.uniform(0.02, 0.5))
            if self.is_connected:
                # Talk is not waited for, like that of the others; everything else is.
                doing = asyncio.create_task(self.act())
                doing.add_done_callback(lambda _: setattr(self, "acts", self.acts + 1))
                background.add(doing)
                doing.add_done_callback(background.discard)
                if self.random.random() < 0.7:
                    await doing
        await asyncio.gather(*background, self.cutting)

    async def be_cut(self):
        while not self.is_stopping:
            acts = self.acts
            await asyncio.sleep(self.random.uniform(1, 7))
            # On a slow machine nobody would get to anything between two cuts. Some come at any moment nevertheless.
            is_patient = self.random.random() < 0.85
            while is_patient and self.acts == acts and not self.is_stopping:
                await asyncio.sleep(0.05)
            if not self.is_stopping:
                await self.cut(self.random.choice(["destroy", "reset", "polite"]))

    async def cut(self, how):
        wire = self.wire
        if wire is None:
            return
        self.records.append({"cut": how})
        if how == "polite":
            try:
                await asyncio.wait_for(wire.disconnect(), PATIENCE_S)
            except (OSError, TimeoutError, socketio.exceptions.SocketIOError):
                pass
            self.gone(wire, "polite")
            return
        wire.cut(how == "reset")
        for _ in range(PATIENCE_S * 20):
            if self.wire is not wire:
                return
            await asyncio.sleep(0.05)
        self.gone(wire, "given up")

    def message(self, meeting):
        n = next(self.messages)
        message = {"meeting_id": meeting, "text": f"{self.name} says {n} é漢😀 <b>", "client_id": f"{self.name}-{n}"}
        if self.random.random() < 0.03:
            message["mentions"] = [self.random.choice(self.users)]
        if self.random.random() < 0.1:
            message["meta"] = {"n": n, "more": [None, {"a": 1}]}
        return message

    async def act(self):
        chance = self.random
        joined = [name for name, room in self.rooms.items() if room.is_member and not room.is_busy]
        meeting = chance.choice(joined) if joined else None
        habits = {"say": 40, "say_and_cut": 4, "say_twice": 4, "edit": 5, "remove": 4, "react": 8, "type": 6}
        habits |= {"read": 6, "browse": 5, "leave": 6, "join": 10, "rejoin": 2}
        habit = chance.choices(list(habits), habits.values())[0] if meeting else "join"
        where = {"meeting_id": meeting}
        seen = list(self.seen.get(meeting, []))
        own = [id for id, sender in seen if sender == self.user]
        position = self.room(meeting).position if meeting else None
        if habit == "say":
            await self.send(self.message(meeting))
        elif habit == "say_and_cut":
            sent = asyncio.create_task(self.send(self.message(meeting)))
            await asyncio.sleep(chance.uniform(0, 0.008))
            await self.cut(chance.choice(["destroy", "reset"]))
            await sent
        elif habit == "say_twice":
            message = self.message(meeting)
            await asyncio.gather(self.send(message), self.send(message))
        elif habit == "edit" and own:
            text = f"edited by {self.name} {chance.random()}"
            await self.ask("edit_message", {**where, "id": chance.choice(own), "text": text})
        elif habit == "remove" and own:
            await self.ask("delete_message", {**where, "id": chance.choice(own)})
        elif habit == "react" and seen:
            reaction = {"id": chance.choice(seen)[0], "emoji": chance.choice(EMOJI), "remove": chance.random() < 0.3}
            await self.ask("react", {**where, **reaction})
        elif habit == "type":
            await self.ask("typing", {**where, "active": chance.random() < 0.7})
        elif habit == "read" and position:
            await self.ask("mark_read", {**where, "seq": chance.randint(0, position["seq"])})
        elif habit == "browse" and position:
            after = {"after_seq": chance.randint(0, position["seq"]), "limit": chance.randint(1, 100)}
            await self.ask("get_history", {**where, **after})
        elif habit == "leave":
            await self.alone(meeting, self.leave_room_of(meeting))
        elif habit == "join":
            other = chance.choice(self.meetings)
            await self.alone(other, self.join_room_of(other))
        elif habit == "rejoin":
            await self.alone(meeting, lambda _: self.join(meeting))

    def leave_room_of(self, meeting):
        def left(room):
            room.is_member = False

        async def leave(room):
            # A message on its way may come too late: it would be refused.
            if not any(message["meeting_id"] == meeting for message in self.unacked.values()):
                room.is_wanted = False
                await self.ask("leave_room", {"meeting_id": meeting}, lambda _: left(room))

        return leave

    def join_room_of(self, meeting):
        async def join(room):
            if not room.is_member:
                room.is_wanted = True
                is_new = self.random.random() < 0.1
                limit = self.random.choice([None, 0, 10, 300]) if is_new or room.position is None else None
                await self.join(meeting, limit, is_new)

        return join

    def is_there(self):
        wanted = [room for room in self.rooms.values() if room.is_wanted]
        return self.is_connected and all(room.is_member and room.upto is None and not room.is_busy for room in wanted)

    async def gather(self):
        """Connected, in the meetings, and all that was said is acked."""
        for n in count(1):
            if self.is_there() and not self.unacked:
                return
            if n % 20 == 0 and self.is_connected:
                await self.resume()
            await asyncio.sleep(0.05)

    async def settle(self):
        """What was said must be here before the answer."""
        settled = []

        def take(_):
            if self.is_there():
                self.records.append({"final": True})
                settled.append(True)

        while not settled:
            await self.gather()
            await self.ask("message", "settled", take)

    async def leave(self):
        self.staying.cancel()
        wire = self.wire
        if wire and self.random.random() < 0.5:
            wire.cut(True)
        elif wire:
            await self.cut("polite")
        await asyncio.wait([self.staying])


def tell(line):
    print(json.dumps(line), flush=True)


async def main():
    loop = asyncio.get_running_loop()
    devices = [Device(cast, loop) for cast in json.loads(sys.argv[1])]

    async def command(word):
        line = (await asyncio.to_thread(sys.stdin.readline)).strip()
        if line != word:
            sys.exit(f"told {line!r} instead of {word!r}")

    async def everybody(act):
        await asyncio.gather(*(act(device) for device in devices))

    running = [asyncio.create_task(device.run()) for device in devices]
    await command("stop")
    for device in devices:
        device.is_stopping = True
    await asyncio.gather(*running)
    await everybody(Device.gather)
    tell({"phase": "gathered"})
    await command("settle")
    await everybody(Device.settle)
    tell({"phase": "settled"})
    await command("leave")
    await everybody(Device.leave)
    for device in devices:
        for record in device.records:
            tell({"name": device.name, "record": record})
    tell({"phase": "done"})


asyncio.run(main())
