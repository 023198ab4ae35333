"""Publish numbered messages with the official client and report what becomes of each.

Events: ready, sent, acked (with the status's name), session, failed, ended.
Commands: "stop" ends an endless run; every message's acknowledgement is awaited first.
"""

import argparse
import threading

import blazingmq
import flint_test as flint


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--uri", action="append", required=True, help="in turn, if several")
    parser.add_argument("--count", type=int, default=0, help="per queue; 0: until told to stop")
    parser.add_argument("--first", type=int, default=1, help="first sequence number")
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--compression", default="none", choices=("none", "zlib"))
    parser.add_argument("--properties", action="store_true")
    parser.add_argument("--window", type=int, default=1000, help="most unacknowledged messages")
    return parser.parse_args()


def main():
    flint.no_environment()
    options = arguments()
    room = threading.Semaphore(options.window)
    finished = threading.Condition()
    pending = set()
    stopping = threading.Event()

    def watch_commands():
        lines = flint.commands()
        while lines.get() != "stop":
            pass
        stopping.set()

    threading.Thread(target=watch_commands, daemon=True).start()

    def report(message_id):
        def on_ack(ack):
            flint.emit("acked", id=message_id, status=ack.status.name)
            with finished:
                pending.discard(message_id)
                finished.notify_all()
            room.release()

        return on_ack

    session = blazingmq.Session(
        flint.on_session_event,
        broker=options.broker,
        timeout=flint.TIMEOUTS,
        message_compression_algorithm=flint.compression(options.compression),
    )
    for uri in options.uri:
        session.open_queue(uri, write=True)
    flint.emit("ready")

    sequence = options.first
    while options.count == 0 or sequence < options.first + options.count:
        for uri in options.uri:
            producer = options.name + "@" + uri.rsplit("/", 1)[1]
            message_id = f"{producer}:{sequence}"
            values, types = None, None
            if options.properties:
                values, types = flint.properties(producer, sequence)
            room.acquire()
            with finished:
                pending.add(message_id)
            flint.emit("sent", id=message_id)
            try:
                session.post(
                    uri,
                    flint.payload(message_id, options.size),
                    properties=values,
                    property_type_overrides=types,
                    on_ack=report(message_id),
                )
            except blazingmq.Error as error:
                flint.emit("failed", id=message_id, text=str(error))
                with finished:
                    pending.discard(message_id)
                room.release()
        sequence += 1
        if options.count == 0 and stopping.is_set():
            break

    with finished:
        finished.wait_for(lambda: not pending)
    session.stop()
    flint.emit("ended")


main()
