"""A Socket.IO server of python-socketio that shares a Redis with others.

Argument: the URL of Redis. Commands come as lines of JSON, and so do the answers.
"""

import logging
import queue
import sys
import threading

import socketio
from werkzeug.serving import make_server

from lines import serve

logging.getLogger("werkzeug").setLevel(logging.ERROR)
manager = socketio.RedisManager(sys.argv[1])
sio = socketio.Server(async_mode="threading", client_manager=manager, logger=False)


@sio.event
def connect(sid, environ):
    pass


@sio.event
def join(sid, room):
    sio.enter_room(sid, room)
    return True


def emit(event, data=None, room=None, skip_sid=None):
    sio.emit(event, data, to=room, skip_sid=skip_sid)


def call(event, data, sid, timeout):
    """What the client answers by its ack."""
    answers = queue.Queue()
    sio.emit(event, data, to=sid, callback=lambda *args: answers.put(list(args)))
    return answers.get(timeout=timeout)


call.waits = True


def enter_room(sid, room):
    sio.enter_room(sid, room)


def leave_room(sid, room):
    sio.leave_room(sid, room)


def close_room(room):
    sio.close_room(room)


def disconnect(sid):
    sio.disconnect(sid)


http = make_server("127.0.0.1", 0, socketio.WSGIApp(sio), threaded=True)
threading.Thread(target=http.serve_forever, daemon=True).start()
serve({"url": f"http://127.0.0.1:{http.server_port}"}, emit, call, enter_room, leave_room, close_room, disconnect)
