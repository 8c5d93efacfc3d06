"""Emits to other processes' clients through Redis, as a program without clients of its own does.

Arguments: `manager` (python-socketio) or `flask` (Flask-SocketIO), the URL of Redis, and a channel unless the usual.
Commands come as lines of JSON, and so do the answers.
"""

import sys

import redis

from lines import serve

kind, url, *rest = sys.argv[1:]
channel = {"channel": rest[0]} if rest else {}
if kind == "manager":
    import socketio

    emitter = socketio.RedisManager(url, write_only=True, **channel)
else:
    import flask_socketio

    emitter = flask_socketio.SocketIO(message_queue=url, **channel)


def emit(event, data=None, room=None, skip_sid=None, namespace="/"):
    if kind == "manager":
        emitter.emit(event, data, namespace=namespace, room=room, skip_sid=skip_sid)
    else:
        emitter.emit(event, data, namespace=namespace, to=room, skip_sid=skip_sid)


def send(data, room=None, as_json=False):
    emitter.send(data, json=as_json, to=room)


def enter_room(sid, room):
    emitter.enter_room(sid, "/", room)


def leave_room(sid, room):
    emitter.leave_room(sid, "/", room)


def close_room(room):
    if kind == "manager":
        emitter.close_room(room, "/")
    else:
        emitter.close_room(room, namespace="/")


def publish(channel, message):
    return redis.Redis.from_url(url).publish(channel, message)


serve({}, emit, send, enter_room, leave_room, close_room, publish)
