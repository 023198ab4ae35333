"""Try to open queues with the official client and report how each attempt ends.

Events: opened, refused (with the class and text of the error), ended.
"""

import argparse

import blazingmq
import flint_test as flint


def main():
    flint.no_environment()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--uri", action="append", required=True)
    parser.add_argument("--read", action="store_true")
    options = parser.parse_args()
    session = blazingmq.Session(
        flint.on_session_event,
        lambda message, handle: None,
        broker=options.broker,
        timeout=flint.TIMEOUTS,
    )
    for uri in options.uri:
        try:
            session.open_queue(uri, read=options.read, write=not options.read)
            flint.emit("opened", uri=uri)
        except (blazingmq.Error, ValueError) as error:
            flint.emit("refused", uri=uri, kind=type(error).__name__, text=str(error))
    session.stop()
    flint.emit("ended")


main()
