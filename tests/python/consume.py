"""Read a queue with the official client, confirm, and report every delivery.

Events: opened, delivered, confirmed, unconfirmable, configured, session, ended.
Commands: "stop" (close the queue and end the session properly), "leave" (end the session with the
queue open), "confirm" (everything delivered and not confirmed yet), "priority N", "limit N".
"""

import argparse
import threading

import blazingmq
import flint_test as flint


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--count", type=int, default=0, help="stop after so many; 0: never")
    parser.add_argument("--confirm", type=int, default=-1, help="only the first N; -1: all")
    parser.add_argument("--priority", type=int, default=0)
    parser.add_argument("--limit", type=int, default=1000, help="most unconfirmed messages")
    parser.add_argument("--properties", action="store_true", help="check them")
    return parser.parse_args()


def same_properties(message, message_id):
    producer, _, sequence = message_id.rpartition(":")
    values, types = flint.properties(producer, int(sequence))
    wrong_type = [name for name in types if message.property_types.get(name) != types[name]]
    return dict(message.properties) == values and not wrong_type


def main():
    flint.no_environment()
    options = arguments()
    lines = flint.commands()
    lock = threading.Lock()
    held = []
    counts = {"delivered": 0, "confirmed": 0}

    def confirm(message_id, handle):
        # Reported first: the next delivery can be quicker than this thread.
        flint.emit("confirmed", id=message_id)
        try:
            handle.confirm()
        except blazingmq.Error as error:
            # The connection is down: the message will come again. An exception here would make the
            # library drop the other messages of the same event.
            flint.emit("unconfirmable", id=message_id, text=str(error))

    def on_message(message, handle):
        message_id, intact = flint.read_payload(message.data)
        if intact and options.properties:
            intact = same_properties(message, message_id)
        with lock:
            # Together with the state, so that a command that follows the report finds it.
            flint.emit("delivered", id=message_id, guid=message.guid.hex(), intact=intact)
            counts["delivered"] += 1
            mine = options.confirm < 0 or counts["confirmed"] < options.confirm
            if mine:
                counts["confirmed"] += 1
            else:
                held.append((message_id, handle))
            last = counts["delivered"] == options.count
        if mine:
            confirm(message_id, handle)
        if last:
            lines.put("stop")

    session = blazingmq.Session(
        flint.on_session_event, on_message, broker=options.broker, timeout=flint.TIMEOUTS
    )
    wanted = {"consumer_priority": options.priority, "max_unconfirmed_messages": options.limit}
    session.open_queue(
        options.uri, read=True, options=blazingmq.QueueOptions(**wanted)
    )
    flint.emit("opened")
    while True:
        command = lines.get().split()
        if command[0] == "stop":
            session.close_queue(options.uri)
            break
        if command[0] == "leave":
            break
        if command[0] == "confirm":
            with lock:
                now, held[:] = held[:], []
            for message_id, handle in now:
                confirm(message_id, handle)
        if command[0] in ("priority", "limit"):
            key = "consumer_priority" if command[0] == "priority" else "max_unconfirmed_messages"
            wanted[key] = int(command[1])
            session.configure_queue(options.uri, blazingmq.QueueOptions(**wanted))
            flint.emit("configured")
    session.stop()
    flint.emit("ended")


main()
