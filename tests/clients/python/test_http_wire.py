"""Promise: no bytes on the port do harm; HTTP/1.0 and 1.1 are read as their texts say, doubtful requests refused."""

import json
import os
import random
import time

import pytest
from service import eventually
from wire import Wire

HEALTH = "/api/v1/chat/health"
ENGINE = "/socket.io/?EIO=4&transport=polling"


def request(method, path, *headers, version="1.1", body=""):
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers]
    return "\r\n".join(lines) + "\r\n\r\n" + body


def engine_session(service):
    with Wire(service) as wire:
        wire.send(request("GET", ENGINE))
        answer = wire.answer()
        assert answer.status == 200
        return f"{ENGINE}&sid={json.loads(answer.body[1:])['sid']}"


def poll_status(service, path):
    with Wire(service) as wire:
        wire.send(request("GET", path))
        answer = wire.answer()
        return answer.status, answer.body


def assert_gone(service, path):
    status, body = poll_status(service, path)
    assert (status, json.loads(body)["code"]) == (400, 1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"\r\n" * 1000,
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 500,  # a TLS ClientHello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost test\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: test\r\n\r\n",
        b"GET / HTTQ/1.1\r\nHost: test\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"G\xc3\xa9T / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"-1\r\n\r\n*3\r\n$3\r\nSET\r\n",
    ],
    ids=lambda garbage: repr(garbage[:20]),
)
def test_garbage_is_refused_and_closed(service, garbage):
    with Wire(service) as wire:
        wire.send(garbage)
        rest = wire.closed()
        assert rest == b"" or rest.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5", b"HTTP/1.0 4", b"HTTP/1.0 5")), rest


def test_random_bytes_do_no_harm(service):
    # Seeded, so that a failure can be repeated.
    source = random.Random(5003)
    for _ in range(200):
        with Wire(service) as wire:
            prefix = source.choice([b"", b"GET ", b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n"])
            wire.send(prefix + source.randbytes(source.randrange(1, 2000)))
    service.assert_healthy()


def test_a_slow_head_is_cut_off(service):
    """HEAD_TIMEOUT is 2 s here, and a byte now and then does not extend it."""
    started = time.monotonic()
    with Wire(service) as wire:
        wire.socket.settimeout(0.1)
        head = request("GET", HEALTH, "X-Slow: " + "x" * 1000).encode()
        answer = None
        for byte in head[:100]:
            try:
                wire.send(bytes([byte]))
                answer = wire.socket.recv(65536)
                break
            except TimeoutError:
                continue
            except OSError:
                answer = b""
                break
        took = time.monotonic() - started
        assert answer is not None, "100 bytes in ten seconds were waited for"
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), answer
        assert 1.8 < took < 8, f"{took} s"


def test_a_connection_without_a_byte_is_closed_too(service):
    started = time.monotonic()
    with Wire(service) as wire:
        rest = wire.closed()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408"), rest
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_head_may_come_in_two_parts(service, cut):
    head = request("GET", HEALTH).encode()
    with Wire(service) as wire:
        wire.send(head[:cut])
        time.sleep(0.02)  # so that the parts are two reads
        wire.send(head[cut:])
        assert wire.answer().status == 200


def test_heads_at_their_limits(service):
    def status(*headers):
        with Wire(service) as wire:
            wire.send(request("GET", HEALTH, *headers))
            return wire.answer().status

    assert status("X-Long: " + "x" * 15_000) == 200
    assert status("X-Long: " + "x" * 17_000) in (400, 431)
    assert status(*(f"X-{n}: y" for n in range(60))) == 200
    assert status(*(f"X-{n}: y" for n in range(70))) in (400, 431)


def test_a_head_without_end_is_refused_before_it_fills_the_memory(service):
    with Wire(service) as wire:
        refused = b""
        try:
            wire.send("GET /" + "x" * 100_000)
            refused = wire.closed()
        except OSError:
            pass
        assert refused == b"" or refused.startswith(b"HTTP/1.1 4"), refused[:100]


def test_pipelined_requests_are_answered_in_order(service):
    with Wire(service) as wire:
        paths = [HEALTH, "/nope", "/api/v1/chat/ready", "/metrics", "/nope2", HEALTH]
        wire.send("".join(request("GET", path) for path in paths))
        assert [wire.answer().status for _ in paths] == [200, 404, 200, 200, 404, 200]


def test_pipelined_requests_behind_a_body_and_a_head_request(service):
    path = engine_session(service)
    with Wire(service) as wire:
        wire.send(
            request("HEAD", HEALTH)
            + request("POST", path, "Content-Length: 2", body="40")
            + request("GET", HEALTH)
            + request("GET", path)
        )
        assert wire.answer(has_body=False).status == 200
        posted = wire.answer()
        assert (posted.status, posted.body) == (200, b"ok")
        assert wire.answer().status == 200
        assert wire.answer().body.startswith(b'40{"sid"')


def test_a_hundred_requests_on_one_connection(service):
    with Wire(service) as wire:
        for _ in range(100):
            wire.send(request("GET", HEALTH))
            assert wire.answer().status == 200


def test_connection_close_is_honoured(service):
    with Wire(service) as wire:
        wire.send(request("GET", HEALTH, "Connection: close"))
        answer = wire.answer()
        assert (answer.status, answer.headers.get("connection", "").lower()) == (200, "close")
        assert wire.closed() == b""


def test_http_1_0_is_answered_and_closed(service):
    with Wire(service) as wire:
        wire.send(f"GET {HEALTH} HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
        assert wire.closed() == b""


def test_http_1_0_with_keep_alive_stays_open(service):
    with Wire(service) as wire:
        for _ in range(3):
            wire.send(request("GET", HEALTH, "Connection: keep-alive", version="1.0"))
            answer = wire.answer()
            assert (answer.status, answer.headers.get("connection", "").lower()) == (200, "keep-alive")


SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize(
    "headers, body",
    [
        (["Content-Length: 5", "Transfer-Encoding: chunked"], "0\r\n\r\n"),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], "0\r\n\r\n"),
        (["Content-Length: 2", "Content-Length: 3"], "40"),
        (["Content-Length: 2, 3"], "40"),
        (["Content-Length: +2"], "40"),
        (["Content-Length: -2"], "40"),
        (["Content-Length: 0x2"], "40"),
        (["Content-Length: 2 "" 2"], "40"),
        (["Content-Length:"], "40"),
        (["Content-Length: 99999999999999999999999"], "40"),
        (["Content-Length : 2"], "40"),
        ([" Content-Length: 2"], "40"),
        (["X: y", " Content-Length: 2"], "40"),
        (["Transfer-Encoding: xchunked"], "2\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked, identity"], "2\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: gzip, chunked"], "2\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: identity"], "40"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "2\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding : chunked"], "2\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: \x0bchunked"], "2\r\n40\r\n0\r\n\r\n"),
        (["X\x00: y", "Content-Length: 2"], "40"),
        (["X: y\x00", "Content-Length: 2"], "40"),
        (["X: y\rZ: a", "Content-Length: 2"], "40"),
        (["X: y\nContent-Length: 2"], "40"),
        (["Host: other", "Content-Length: 2"], "40"),
        (["Transfer-Encoding: chunked"], "2x\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], "-2\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], "0x2\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], "2\r\n40XX0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], "2\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], "\r\n40\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], "fffffffffffffffff2\r\n40\r\n0\r\n\r\n"),
    ],
    ids=lambda part: repr(part)[:60],
)
def test_a_request_of_doubtful_length_is_refused_and_nothing_behind_it_is_read(service, headers, body):
    path = engine_session(service)
    with Wire(service) as wire:
        wire.send(request("POST", path, *headers, body=body) + SMUGGLED)
        answer = wire.answer()
        assert answer.status in (400, 413, 501), answer
        assert wire.closed() == b"", "something was answered behind the refusal"


def test_http_1_0_knows_no_transfer_encoding(service):
    path = engine_session(service)
    with Wire(service) as wire:
        wire.send(request("POST", path, "Transfer-Encoding: chunked", version="1.0", body="2\r\n40\r\n0\r\n\r\n"))
        assert wire.answer().status == 400
        assert wire.closed() == b""


def test_http_1_1_without_a_host_is_refused(service):
    with Wire(service) as wire:
        wire.send(f"GET {HEALTH} HTTP/1.1\r\n\r\n")
        assert wire.answer().status == 400
        assert wire.closed() == b""


def test_an_absolute_target_is_its_path(service):
    with Wire(service) as wire:
        wire.send(request("GET", f"http://test{HEALTH}"))
        assert wire.answer().status == 200


def test_a_half_closed_client_still_gets_its_answer(service):
    with Wire(service) as wire:
        wire.send(request("GET", HEALTH))
        wire.half_close()
        assert wire.answer().status == 200
        assert wire.closed() == b""


def test_a_client_that_is_gone_before_its_answer_does_no_harm(service):
    for _ in range(50):
        wire = Wire(service)
        wire.send(request("GET", "/metrics") * 20)
        wire.reset()
    service.assert_healthy()


def test_expect_100_continue_is_answered(service):
    path = engine_session(service)
    with Wire(service) as wire:
        wire.send(request("POST", path, "Content-Length: 2", "Expect: 100-continue"))
        assert wire.answer().status == 100
        wire.send("40")
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"ok")


def test_expect_100_continue_is_not_answered_for_what_is_refused(service):
    with Wire(service) as wire:
        wire.send(request("POST", f"{ENGINE}&sid=unknown", "Content-Length: 2", "Expect: 100-continue"))
        assert wire.answer().status == 400


@pytest.mark.parametrize(
    "body",
    [
        "2\r\n40\r\n0\r\n\r\n",
        "1\r\n4\r\n1\r\n0\r\n0\r\n\r\n",
        "0002\r\n40\r\n000\r\n\r\n",
        "2;name=value\r\n40\r\n0\r\n\r\n",
        "2\r\n40\r\n0\r\nTrailer: x\r\n\r\n",
    ],
    ids=repr,
)
def test_a_chunked_payload_is_read(service, body):
    path = engine_session(service)
    with Wire(service) as wire:
        wire.send(request("POST", path, "Transfer-Encoding: chunked", body=body))
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        wire.send(request("GET", path))
        assert wire.answer().body.startswith(b'40{"sid"')


def test_a_chunked_payload_may_come_byte_by_byte(service):
    path = engine_session(service)
    with Wire(service) as wire:
        for byte in request("POST", path, "Transfer-Encoding: chunked", body="2\r\n40\r\n0\r\n\r\n"):
            wire.send(byte)
        assert wire.answer().body == b"ok"


@pytest.mark.parametrize("end", ["close", "half close", "reset"])
def test_the_end_of_a_parked_poll_closes_its_session(service, end):
    path = engine_session(service)
    with Wire(service) as wire:
        wire.send(request("POST", path, "Content-Length: 2", body="40"))
        assert wire.answer().body == b"ok"
        wire.send(request("GET", path))
        packets = wire.answer().body.split(b"\x1e")
        if len(packets) < 2:
            wire.send(request("GET", path))
            wire.answer()
        sessions = service.metric("chat_sessions")
        wire.send(request("GET", path))
        time.sleep(0.05)  # no event tells that a poll is parked
        {"close": wire.socket.close, "half close": wire.half_close, "reset": wire.reset}[end]()

        def gone():
            assert service.metric("chat_sessions") <= sessions - 1

        eventually(gone)
    assert_gone(service, path)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_the_end_of_an_unfinished_post_closes_its_session(service, end):
    path = engine_session(service)
    sessions = service.metric("chat_sessions")
    wire = Wire(service)
    wire.send(request("POST", path, "Content-Length: 100", body="40"))
    time.sleep(0.05)
    {"close": wire.socket.close, "reset": wire.reset}[end]()

    def gone():
        assert service.metric("chat_sessions") <= sessions - 1

    eventually(gone)
    assert_gone(service, path)


def test_descriptors_are_given_back(service):
    def open_descriptors():
        return len(os.listdir(f"/proc/{service.process.pid}/fd"))

    before = open_descriptors()
    wires = [Wire(service) for _ in range(100)]
    for n, wire in enumerate(wires):
        wire.send(["", "GET ", request("GET", HEALTH), "\x00"][n % 4])
    for wire in wires:
        wire.socket.close()

    def given_back():
        assert open_descriptors() <= before + 3

    eventually(given_back)
