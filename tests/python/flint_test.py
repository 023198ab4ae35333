"""What the test scripts share: reports as JSON lines, and messages that can be checked.

A script reports on standard output, one JSON object per line, with the name of what happened in
"event" and a monotonic time in nanoseconds in "at" (one clock for all processes of a machine). It
takes commands on standard input, one word per line.
"""

import hashlib
import json
import os
import queue
import sys
import threading
import time

import blazingmq

_lock = threading.Lock()

TIMEOUTS = blazingmq.Timeouts(
    connect_timeout=60.0,
    disconnect_timeout=60.0,
    open_queue_timeout=300.0,
    configure_queue_timeout=300.0,
    close_queue_timeout=300.0,
)


def emit(event, **facts):
    """Report one event."""
    line = json.dumps({"event": event, "at": time.monotonic_ns(), **facts})
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def payload(message_id, size):
    """The bytes of a message: its id, its size, and a filling that follows from the id."""
    head = f"{message_id} {size} ".encode()
    filling = hashlib.sha256(message_id.encode()).hexdigest().encode()
    body = head + filling * (size // len(filling) + 1)
    return body[: max(size, len(head))]


def read_payload(data):
    """The id of a message, and whether its bytes are exactly those that were sent."""
    try:
        message_id, size, _ = data.split(b" ", 2)
        message_id = message_id.decode()
        return message_id, data == payload(message_id, int(size))
    except ValueError:
        return repr(data[:40]), False


def properties(producer, sequence):
    """One property of every type; the values follow from the sequence number."""
    values = {
        "producer": producer,
        "sequence": sequence,
        "odd": sequence % 2 == 1,
        "letter": bytes([65 + sequence % 26]),
        "short": sequence % 30000 - 15000,
        "int32": -sequence,
        "bytes": sequence.to_bytes(8, "little"),
        "text": "größe " + "x" * (sequence % 20),
    }
    types = {
        "sequence": blazingmq.PropertyType.INT64,
        "letter": blazingmq.PropertyType.CHAR,
        "short": blazingmq.PropertyType.SHORT,
        "int32": blazingmq.PropertyType.INT32,
    }
    return values, types


def commands():
    """A queue that gets each line of standard input, and "stop" at its end."""
    lines = queue.Queue()

    def read():
        for line in sys.stdin:
            lines.put(line.strip())
        lines.put("stop")

    threading.Thread(target=read, daemon=True).start()
    return lines


def on_session_event(event):
    """Report what happens to the connection."""
    emit("session", kind=type(event).__name__, text=str(event))


def compression(name):
    """The compression of this name."""
    return getattr(blazingmq.CompressionAlgorithmType, name.upper())


def no_environment():
    """Do not let a developer's own settings choose another broker."""
    os.environ.pop("BMQ_BROKER_URI", None)
