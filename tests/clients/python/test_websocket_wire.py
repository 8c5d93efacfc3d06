"""Promise: a WebSocket client that breaks RFC 6455 gets the close code that names what it did, and nobody else notices."""

import pytest
from service import eventually
from wire import WebSocket, frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MAX_PAYLOAD = 65_536


@pytest.fixture
def websocket(service):
    with WebSocket(service) as socket:
        yield socket


@pytest.fixture
def connected(websocket):
    websocket.send(frame(TEXT, b"40"))
    assert websocket.frame()[1].startswith(b'40{"sid"')
    assert websocket.frame()[1].startswith(b'42["ready"')
    return websocket


PROTOCOL_ERRORS = {
    "an unmasked frame": frame(TEXT, b"40", mask=None),
    "reserved bit 1": frame(TEXT, b"40", reserved=4),
    "reserved bit 2": frame(TEXT, b"40", reserved=2),
    "reserved bit 3": frame(TEXT, b"40", reserved=1),
    "reserved opcode 3": frame(3, b"x"),
    "reserved opcode 7": frame(7, b"x"),
    "reserved opcode 11": frame(11, b"x"),
    "reserved opcode 15": frame(15, b"x"),
    "a fragmented ping": frame(PING, b"x", fin=False),
    "a fragmented close": frame(CLOSE, b"\x03\xe8", fin=False),
    "a ping of 126 bytes": frame(PING, b"x" * 126),
    "a continuation of nothing": frame(0, b"x"),
    "a new message inside another": frame(TEXT, b"4", fin=False) + frame(TEXT, b"0"),
    "a close of one byte": frame(CLOSE, b"\x03"),
    "a close with a code that must not be sent": frame(CLOSE, (1005).to_bytes(2, "big")),
    "a close with code 0": frame(CLOSE, b"\x00\x00"),
}


@pytest.mark.parametrize("name", PROTOCOL_ERRORS)
def test_a_protocol_error_is_1002(websocket, name):
    websocket.send(PROTOCOL_ERRORS[name])
    assert websocket.close_code() == 1002


@pytest.mark.parametrize(
    "frames",
    [
        frame(TEXT, b"4\xc3\x28"),
        frame(TEXT, b"4\xff"),
        frame(TEXT, b"4\xed\xa0\x80"),  # a surrogate
        frame(TEXT, b"4\xc0\xaf"),  # an overlong form
        frame(TEXT, b"4\xf4\x90\x80\x80"),  # beyond U+10FFFF
        frame(TEXT, b"4\xc3", fin=False) + frame(0, b"\x28"),
    ],
    ids=repr,
)
def test_text_that_is_not_utf8_is_1007(websocket, frames):
    websocket.send(frames)
    assert websocket.close_code() == 1007


def test_a_character_may_be_split_by_a_fragment(connected):
    packet = '42["message","é"]'.encode()
    cut = packet.index(b"\xc3") + 1
    connected.send(frame(TEXT, packet[:cut], fin=False) + frame(PING, b"p") + frame(0, packet[cut:]))
    assert connected.frame() == (PONG, b"p")
    assert connected.frame() == (TEXT, '42["response",{"data":"é"}]'.encode())


def test_too_large_is_1009_before_it_is_sent(connected):
    """The head of a frame says it; the server does not wait for gigabytes."""
    connected.send(frame(TEXT, b"4", length=1 << 40))
    assert connected.close_code() == 1009


def test_one_byte_too_large_is_1009(connected):
    connected.send(frame(TEXT, b"4" * (MAX_PAYLOAD + 1)))
    assert connected.close_code() == 1009


def test_too_large_in_fragments_is_1009(connected):
    connected.send(frame(TEXT, b"4" * 40_000, fin=False))
    connected.send(frame(0, b"4" * 40_000))
    assert connected.close_code() == 1009


def test_a_length_with_the_highest_bit_is_refused(connected):
    connected.send(frame(TEXT, b"4", length=1 << 63))
    assert connected.close_code() in (1002, 1009)


def test_many_empty_fragments_are_one_message(connected):
    packet = b'42["message",1]'
    connected.send(frame(TEXT, b"", fin=False))
    for _ in range(2000):
        connected.send(frame(0, b"", fin=False))
    connected.send(frame(0, packet))
    assert connected.frame() == (TEXT, b'42["response",{"data":1}]')


def test_a_ping_flood_is_answered(connected):
    for n in range(500):
        connected.send(frame(PING, str(n).encode()))
    assert connected.frame()[0] == PONG
    # RFC 6455 lets a server answer only the latest of several.
    while True:
        opcode, payload = connected.frame()
        assert opcode == PONG
        if payload == b"499":
            break


def test_a_pong_that_nobody_asked_for_is_ignored(connected):
    connected.send(frame(PONG, b"x") + frame(TEXT, b'42["message",1]'))
    assert connected.frame() == (TEXT, b'42["response",{"data":1}]')


def test_frames_may_come_byte_by_byte(connected):
    for byte in frame(TEXT, b'42["message",1]'):
        connected.send(bytes([byte]))
    assert connected.frame() == (TEXT, b'42["response",{"data":1}]')


def test_many_frames_may_come_in_one_segment(connected):
    connected.send(b"".join(frame(TEXT, f'42["message",{n}]'.encode()) for n in range(100)))
    for n in range(100):
        assert connected.frame() == (TEXT, f'42["response",{{"data":{n}}}]'.encode())


@pytest.mark.parametrize("length", [0, 125, 126, 127, 65_000])
def test_every_form_of_length_is_read_and_written(connected, length):
    text = b"x" * length
    connected.send(frame(TEXT, b'42["message","' + text + b'"]'))
    assert connected.frame() == (TEXT, b'42["response",{"data":"' + text + b'"}]')


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999, None])
def test_a_close_is_answered_and_the_connection_ends(connected, code):
    connected.send(frame(CLOSE, code.to_bytes(2, "big") + b"bye" if code else b""))
    opcode, payload = connected.frame()
    assert opcode == CLOSE
    assert payload[:2] in (b"", (code or 1000).to_bytes(2, "big"), b"\x03\xe8")
    assert connected.closed() == b""


def test_nothing_behind_a_close_is_read(connected):
    connected.send(frame(CLOSE, b"\x03\xe8") + frame(TEXT, b'42["message","late"]'))
    assert connected.frame()[0] == CLOSE
    assert connected.closed() == b""


@pytest.mark.parametrize("end", ["close", "half close", "reset"])
def test_the_end_of_the_connection_ends_the_session(service, end):
    with WebSocket(service) as socket:
        before = service.metric("chat_sessions")
        {"close": socket.socket.close, "half close": socket.half_close, "reset": socket.reset}[end]()

        def gone():
            assert service.metric("chat_sessions") <= before - 1

        eventually(gone)


def test_half_a_frame_and_the_end_do_no_harm(service):
    whole = frame(TEXT, b'42["message","x"]')
    for cut in range(len(whole)):
        with WebSocket(service) as socket:
            socket.send(whole[:cut])
    service.assert_healthy()
