"""Lets another process call functions: one call a line of JSON on stdin, one answer a line on stdout."""

import base64
import json
import sys
import threading


def decoded(value):
    """The value that JSON has no word for: bytes and tuples."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, dict):
        if list(value) == ["$bytes"]:
            return base64.b64decode(value["$bytes"])
        if list(value) == ["$tuple"]:
            return tuple(decoded(item) for item in value["$tuple"])
        return {key: decoded(item) for key, item in value.items()}
    return value


def serve(ready, *functions):
    """Answers until stdin ends. `ready` goes along with the first line."""
    by_name = {function.__name__: function for function in functions}
    lock = threading.Lock()

    def write(message):
        with lock:
            print(json.dumps(message), flush=True)

    def answer(call, function, arguments):
        try:
            write({"id": call, "value": function(**arguments)})
        except Exception as error:  # Whatever it is, the test is to see it.
            write({"id": call, "error": f"{type(error).__name__}: {error}"})

    write({"ready": True, **ready})
    for line in sys.stdin:
        arguments = decoded(json.loads(line))
        call, function = arguments.pop("id"), by_name[arguments.pop("do")]
        # In order, but a call that waits for a callback must not hold up the others.
        if getattr(function, "waits", False):
            threading.Thread(target=answer, args=(call, function, arguments), daemon=True).start()
        else:
            answer(call, function, arguments)
