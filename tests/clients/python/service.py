"""Starts the service under test on a free port of the loopback and ends it by its own pid."""

import os
import random
import re
import socket
import subprocess
import time

import requests

#: Bound of every wait, in seconds; reached only when something is broken.
PATIENCE_S = 15

#: No limit that a burst of tests would hit, and deadlines short enough to wait for.
TEST_SETTINGS = {
    "RATE_LIMITS": "off",
    "MAX_CONNECTIONS_PER_IP": "0",
    "LOG_LEVEL": "warn",
    "HEAD_TIMEOUT": "2s",
    "DRAIN_SPREAD": "500ms",
}


def free_port():
    """None of those that the kernel gives to connections by itself: one of these could take it before the service does."""
    while True:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", random.randrange(11_000, 31_000)))
            except OSError:
                continue
            return listener.getsockname()[1]


def eventually(check, patience_s=PATIENCE_S):
    """Repeats `check` (an assertion) until it holds."""
    end = time.monotonic() + patience_s
    while True:
        try:
            return check()
        except (AssertionError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


class Service:
    def __init__(self, port=None, **settings):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Only these variables: the service must not see a developer's own REDIS_URL or SECRET_KEY.
        env = {"PATH": os.environ["PATH"], "PORT": str(self.port), **TEST_SETTINGS, **settings}
        binary = os.environ["CHAT_SERVICE_BIN"]
        self.process = subprocess.Popen([binary], env=env, stdout=subprocess.DEVNULL)
        eventually(self.assert_healthy)

    def assert_healthy(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the service ended with {self.process.returncode}")
        assert requests.get(f"{self.url}/api/v1/chat/health", timeout=PATIENCE_S).status_code == 200

    def metric(self, name):
        """Sum of one metric over its labels; it must be there."""
        text = requests.get(f"{self.url}/metrics", timeout=PATIENCE_S).text
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        assert values, f"no metric {name}"
        return sum(float(value) for value in values)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.assert_healthy()
            assert self.metric("chat_panics_total") == 0
        finally:
            self.kill()
