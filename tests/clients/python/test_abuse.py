"""Promise: clients that flood, stall or vanish, alone or all at once, cost nobody else and leave nothing behind."""

import json
import os
import queue
import random
import select
import signal
import socket
import threading
import time

import pytest
import socketio
from service import PATIENCE_S, Service, eventually
from wire import WebSocket, Wire, frame

TEXT, CLOSE, PING, PONG = WebSocket.TEXT, WebSocket.CLOSE, WebSocket.PING, WebSocket.PONG
MB = 1 << 20


def text(packet):
    return frame(TEXT, packet.encode())


def request(method, path, body=None):
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{length}\r\n{body or ''}"


class Polling(Wire):
    """A session on polling, and one connection for its requests."""

    ENGINE = "/socket.io/?EIO=4&transport=polling"

    def __init__(self, service, joins=True):
        super().__init__(service)
        self.service = service
        self.send(request("GET", self.ENGINE))
        self.sid = json.loads(self.answer().body[1:])["sid"]
        self.path = f"{self.ENGINE}&sid={self.sid}"
        if joins:
            self.post("40")
            packets = []
            while len(packets) < 2:
                packets += self.poll()
            assert packets[0].startswith('40{"sid"') and packets[1].startswith('42["ready"')

    def post(self, *packets):
        self.send(request("POST", self.path, "\x1e".join(packets)))
        answer = self.answer()
        assert (answer.status, answer.body) == (200, b"ok")

    def park(self):
        self.send(request("GET", self.path))

    def poll(self):
        self.park()
        return self.packets()

    def packets(self):
        answer = self.answer()
        assert answer.status == 200, answer
        return answer.body.decode().split("\x1e")

    def unfinished_post(self, packet, sent):
        """A POST on a connection of its own, of which only `sent` characters have left so far."""
        wire = Wire(self.service)
        whole = request("POST", self.path, packet)
        wire.send(whole[: len(whole) - len(packet) + sent])
        return wire


class Flood:
    """Sends `block` again and again, from a thread of its own, until `limit` bytes have left or it is stopped."""

    def __init__(self, wire, block, limit=None, reads=False):
        self.socket, self.block, self.limit = wire.socket, memoryview(block), limit
        self.sent_bytes = 0
        self.error = None
        self.stopped = False
        self.socket.settimeout(None)
        self.sender = threading.Thread(target=self._run, args=[self._send])
        self.threads = [self.sender] + ([threading.Thread(target=self._run, args=[self._read])] if reads else [])

    def _run(self, part):
        try:
            part()
        except OSError as error:
            # One of its own is how it is stopped.
            if not self.stopped:
                self.error = error

    def _send(self):
        while not self.limit or self.sent_bytes < self.limit:
            # From where it stopped, so that no frame is torn.
            self.sent_bytes += self.socket.send(self.block[self.sent_bytes % len(self.block) :])

    def _read(self):
        while self.socket.recv(MB):
            pass

    def goes_on(self):
        return self.sender.is_alive()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for thread in self.threads:
            thread.join()
        self.socket.close()


def proc(service, name):
    with open(f"/proc/{service.process.pid}/{name}") as file:
        return file.read()


def cpu_s(service):
    user, system = proc(service, "stat").rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident_mb(service):
    return int(proc(service, "status").split("VmRSS:")[1].split()[0]) // 1024


def joined(service):
    """A WebSocket that has joined the namespace."""
    websocket = WebSocket(service)
    websocket.send(text("40"))
    assert websocket.frame()[1].startswith(b'40{"sid"')
    assert websocket.frame()[1].startswith(b'42["ready"')
    return websocket


def response(data):
    return (TEXT, f'42["response",{{"data":{json.dumps(data)}}}]'.encode())


def message(data):
    return f'42["message",{json.dumps(data)}]'


@pytest.fixture
def one_thread():
    """A service with one worker thread: whoever does not let go of it is noticed."""
    with Service(WORKER_THREADS="1") as running:
        yield running


def health_answers_during(service, floods, count=20):
    """Health answers `count` times before a flood has come to its end. No time is looked at, only what is first."""
    for n in range(count):
        service.assert_healthy()
        for flood in floods:
            assert flood.goes_on(), f"only {n} of {count} times before a flood was over: {flood.error or 'all sent'}"


FLOODS = {
    "pings, answers not read": (b"", frame(PING, b"x" * 125) * 30_000, False),
    "pings, answers read": (b"", frame(PING, b"x" * 125) * 30_000, True),
    "pongs": (b"", frame(PONG) * 600_000, False),
    "empty fragments": (frame(TEXT, b"4", fin=False), frame(0, b"", fin=False) * 600_000, False),
}


def flooding(service, kind):
    first, block, reads = FLOODS[kind]
    websocket = joined(service)
    websocket.send(first)
    return Flood(websocket, block, limit=128 * MB, reads=reads)


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_that_is_no_message_takes_neither_memory_nor_the_others_turn(one_thread, kind):
    def assert_small():
        sent_mb = (one.sent_bytes + two.sent_bytes) // MB
        assert resident_mb(one_thread) < before_mb + 64, f"after {sent_mb} MB"

    before_mb = resident_mb(one_thread)
    with flooding(one_thread, kind) as one, flooding(one_thread, kind) as two:
        health_answers_during(one_thread, [one, two])
        end = time.monotonic() + 2
        while (one.goes_on() or two.goes_on()) and time.monotonic() < end:
            assert_small()
            time.sleep(0.02)
        assert_small()
        assert (one.error, two.error) == (None, None)


def pipelined(service):
    return Flood(Wire(service), request("GET", "/api/v1/chat/ready").encode() * 20_000, limit=32 * MB, reads=True)


def test_requests_pipelined_without_end_leave_health_its_turn(one_thread):
    with pipelined(one_thread) as one, pipelined(one_thread) as two:
        health_answers_during(one_thread, [one, two])


def test_requests_pipelined_without_end_do_not_hold_up_a_drain():
    service = Service(WORKER_THREADS="1", DRAIN_TIMEOUT="1s")
    try:
        with pipelined(service) as one, pipelined(service) as two:
            one.limit = two.limit = None

            def both_run():
                assert one.sent_bytes > MB and two.sent_bytes > MB

            eventually(both_run)
            service.process.send_signal(signal.SIGTERM)
            # Four times its DRAIN_TIMEOUT; raises if that passes.
            assert service.process.wait(4) == 0
    finally:
        service.kill()


def test_a_client_that_reads_late_gets_every_pong_without_a_pause(service):
    """Half a second without reading fills all buffers. Then both go on at once, until the last pong."""
    stall_s = 5
    pings, pongs = b"", b""
    for n in range(1000):
        payload = b"%0125d" % n
        pings += frame(PING, payload)
        pongs += bytes([0x80 | PONG, len(payload)]) + payload
    with joined(service) as websocket:
        client, sent, came = websocket.socket, 0, 0
        client.setblocking(False)
        while sent < 256 * MB and select.select([], [client], [], 0.5)[1]:
            sent += client.send(memoryview(pings)[sent % len(pings) :])
        # To the end of the ping that was cut.
        count = -(-sent * 1000 // len(pings))
        whole, expected = count * len(pings) // 1000, count * len(pongs) // 1000
        while came < expected:
            unsent = memoryview(pings)[sent % len(pings) :][: whole - sent]
            readable, writable, _ = select.select([client], [client] if unsent else [], [], stall_s)
            assert readable or writable, f"nothing for {stall_s} s after {came} of {expected} bytes"
            if writable:
                sent += client.send(unsent)
            if readable:
                data = client.recv(65536)
                assert data, "closed"
                offset = came % len(pongs)
                assert data == (pongs + pongs)[offset : offset + len(data)]
                came += len(data)
        assert came == expected


@pytest.mark.parametrize("opcode", [PING, CLOSE], ids=["ping", "close"])
def test_a_control_frame_right_behind_the_upgrade_request_is_answered_behind_the_101(service, opcode):
    payload = (1000).to_bytes(2, "big")
    # The 101 is asserted inside.
    with WebSocket(service, behind=frame(opcode, payload)) as websocket:
        first = websocket.frame()
        came = [first] if first[0] == CLOSE else [first, websocket.frame()]
        if opcode == PING:
            # The open packet and the pong, in either order.
            assert {each[0] for each in came} == {TEXT, PONG}
            assert (PONG, payload) in came
            websocket.send(text("40"))
            assert websocket.frame()[1].startswith(b'40{"sid"')
        else:
            assert came[-1] == (CLOSE, payload)
            assert websocket.closed() == b""


def test_what_came_before_a_close_frame_is_answered_before_it_is(service):
    with joined(service) as websocket:
        websocket.send(b"".join(text(message(n)) for n in range(20)) + frame(CLOSE, (1000).to_bytes(2, "big")))
        for n in range(20):
            assert websocket.frame() == response(n)
        assert websocket.frame()[0] == CLOSE
        assert websocket.closed() == b""


def probed(session):
    websocket = WebSocket(session.service, sid=session.sid)
    websocket.send(text("2probe"))
    assert websocket.frame() == (TEXT, b"3probe")
    return websocket


def test_an_upgrade_held_by_a_post_sleeps_and_then_keeps_the_order(service):
    with Polling(service) as session:
        packet = message("by polling")
        with session.unfinished_post(packet, sent=6) as post, probed(session) as websocket:
            websocket.send(text("5") + text(message("by websocket")))
            before_s = cpu_s(service)
            time.sleep(2)  # the time that is measured
            assert cpu_s(service) - before_s < 0.5
            post.send(packet[6:])
            assert post.answer().body == b"ok"
            assert [websocket.frame(), websocket.frame()] == [response("by polling"), response("by websocket")]


def test_an_upgrade_with_more_than_half_an_outbox_queued_is_served_at_once(service):
    with Polling(service) as session:
        queued = [f"{n} " + "x" * 9000 for n in range(70)]
        for n in range(0, len(queued), 7):
            session.post(*map(message, queued[n : n + 7]))
        assert service.metric("chat_outbox_bytes") > 600_000, "not half of 1 MiB"
        with probed(session) as websocket:
            websocket.send(text("5"))
            assert [websocket.frame() for _ in queued] == [response(each) for each in queued]


def test_sessions_are_bounded_like_connections():
    opening = request("GET", Polling.ENGINE)
    with Service(MAX_CONNECTIONS="20", CONNECT_TIMEOUT_MS="2500") as service, Wire(service) as wire:
        # In one segment: all before the first times out.
        wire.send(opening * 21)
        assert [wire.answer().status for _ in range(20)] == [200] * 20
        refused = wire.answer()
        assert (refused.status, int(refused.headers["retry-after"]) > 0) == (503, True)
        assert json.loads(refused.body)
        assert service.metric("chat_sessions") == 20

        def timed_out():
            assert service.metric("chat_sessions") == 0

        eventually(timed_out)

        def opens():
            with Wire(service) as another:
                another.send(opening)
                assert another.answer().status == 200

        eventually(opens)


def test_members_that_vanish_while_a_room_is_busy_leave_no_room_and_no_member():
    """Some send so much that the room refuses more; then everybody is gone at once."""
    join = text('420["join_room","crowd"]')
    # Large outboxes: nobody is to be closed for being slow.
    with Service(WORKER_THREADS="4", OUTBOX_MAX_BYTES=str(64 * MB)) as service:
        members = [WebSocket(service, behind=text("40") + join) for _ in range(400)]

        def all_in():
            assert service.metric("chat_received_events_total") == len(members)

        eventually(all_in)
        chat = text('42["chat_message",{"meeting_id":"crowd","text":"x"}]')
        floods = [Flood(member, chat * 1000) for member in members[:4]]
        came = b""
        for flood in floods:
            flood.__enter__()
        members[0].socket.settimeout(PATIENCE_S)
        while b'"unavailable"' not in came[-2 * MB :]:
            came += members[0].socket.recv(MB)
        for member in members[4:]:
            member.reset()
        for flood in floods:
            flood.__exit__()

        def gone():
            assert service.metric("chat_sessions") == 0
            assert service.metric("chat_rooms") == 0

        eventually(gone)
        with joined(service) as new:
            new.send(join)
            opcode, ack = new.frame()
            assert json.loads(ack[3:])[0]["members"] == 1


def test_a_drain_tells_every_parked_poll_before_it_closes_it():
    service = Service(DRAIN_SPREAD="0s", DRAIN_TIMEOUT="5s")
    try:
        sessions = [Polling(service) for _ in range(100)]
        for session in sessions:
            session.park()
        time.sleep(0.2)  # no event tells that a poll is parked
        service.assert_healthy()  # what comes later has been read
        service.process.send_signal(signal.SIGTERM)
        for session in sessions:
            packets = session.packets()
            assert packets[0].startswith('42["server_draining",'), packets
            if len(packets) == 1:
                with Wire(service) as wire:
                    wire.send(request("GET", session.path))
                    packets.append(wire.answer().body.decode())
            assert packets[1:] == ["1"]
            session.socket.close()
        assert service.process.wait(PATIENCE_S) == 0
    finally:
        service.kill()


def test_a_drain_keeps_to_sixteen_packets_an_answer_and_loses_none():
    service = Service(DRAIN_SPREAD="0s", DRAIN_TIMEOUT="5s")
    try:
        session = Polling(service)
        session.post(*(f'42["message",{number}]' for number in range(40)))
        service.process.send_signal(signal.SIGTERM)
        packets = []
        while packets[-1:] != ["1"]:
            with Wire(service) as wire:  # a server that drains closes after each answer
                wire.send(request("GET", session.path))
                answer = wire.answer().body.decode().split("\x1e")
            assert len(answer) <= 16, answer
            packets += answer
        echoes = [packet for packet in packets if packet.startswith('42["response"')]
        assert echoes == [f'42["response",{{"data":{number}}}]' for number in range(40)]
        assert sum(packet.startswith('42["server_draining"') for packet in packets) == 1
        assert service.process.wait(PATIENCE_S) == 0
    finally:
        service.kill()


def test_python_socketio_by_polling_gets_a_hundred_answers_at_once(service):
    """It gives up on an answer with more than 16 packets."""
    came, left = queue.Queue(), queue.Queue()
    client = socketio.Client(reconnection=False)
    client.on("response", lambda event: came.put(event["data"]))
    client.on("disconnect", left.put)
    client.connect(service.url, transports=["polling"], wait_timeout=PATIENCE_S)
    try:
        for n in range(100):
            client.emit("message", n)
        assert sorted(came.get(timeout=PATIENCE_S) for _ in range(100)) == list(range(100))
        assert left.empty()
    finally:
        client.disconnect()


SHORT = {
    "PING_INTERVAL_MS": "300",
    "PING_TIMEOUT_MS": "200",
    "CONNECT_TIMEOUT_MS": "1000",
    "UPGRADE_TIMEOUT_MS": "700",
    "BODY_TIMEOUT": "700ms",
    "KEEP_ALIVE_TIMEOUT": "1s",
    "OUTBOX_MAX_BYTES": "70000",
}


def stray(service, source, kept):
    """One client that goes some random way and then stops somehow."""

    def stop(wire):
        end = source.choice(["close", "reset", "half close", "silence"])
        if end in ("half close", "silence"):
            kept.append(wire)
        {"close": wire.socket.close, "reset": wire.reset, "half close": wire.half_close, "silence": int}[end]()

    join = f'420["join_room","c{source.randrange(3)}"]'
    chat = text('42["chat_message",{"meeting_id":"c1","text":"' + "x" * 500 + '"}]') * 50
    wires = []
    try:
        if source.random() < 0.33:
            websocket = WebSocket(service)
            wires.append(websocket)
            for part in [text("40"), text(join), chat][: source.randrange(4)]:
                websocket.send(part)
            return
        session = Polling(service, joins=False)
        wires.append(session)
        for packet in ["40", join][: source.randrange(3)]:
            session.post(packet)
        if source.random() < 0.5:
            session.park()
        post = None
        if source.random() < 0.3:
            post = session.unfinished_post(message("x"), sent=2)
            wires.append(post)
        if source.random() < 0.6:
            websocket = WebSocket(service, sid=session.sid)
            wires.append(websocket)
            steps = [text("2probe"), text("5"), text(message(1))]
            for step in steps[: source.randrange(4)]:
                websocket.send(step)
            if post and source.random() < 0.5:
                post.send('["x')
    except (OSError, AssertionError):
        pass  # whatever the service makes of it
    finally:
        for wire in wires:
            try:
                stop(wire)
            except OSError:
                pass


def test_two_hundred_clients_stopped_anywhere_leave_nothing_behind():
    def run(seed):
        # Seeded, so that a failure can be repeated, as far as threads can.
        source = random.Random(seed)
        for _ in range(50):
            stray(service, source, kept)

    kept = []
    with Service(**SHORT) as service:
        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert service.metric("chat_handshakes_total") >= 180
        assert service.metric("chat_upgrades_total") > 0

        def nothing_left():
            # Those that are silent are still connected.
            for name in ["chat_sessions", "chat_rooms", "chat_outbox_bytes"]:
                assert service.metric(name) == 0, name

        eventually(nothing_left)
        assert service.metric("chat_panics_total") == 0
        for wire in kept:
            wire.socket.close()

        def nobody_left():
            assert service.metric("chat_connections") == 1

        eventually(nobody_left)
