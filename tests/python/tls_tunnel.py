"""Carry a plain connection to a TLS port, so that a client without TLS can be tested through one.

Checks the server's certificate against --ca and --host. Events: listening (with the port), refused
(with the reason), ended. Commands: "stop".
"""

import argparse
import socket
import ssl
import threading

import flint_test as flint


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True, help="not used: the plain address")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--ca", required=True)
    options = parser.parse_args()
    context = ssl.create_default_context(cafile=options.ca)
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(plain):
        try:
            raw = socket.create_connection(("127.0.0.1", options.port))
            secure = context.wrap_socket(raw, server_hostname=options.host)
        except OSError as error:
            flint.emit("refused", text=str(error))
            plain.close()
            return
        flint.emit("carrying", version=secure.version())
        threading.Thread(target=copy, args=(plain, secure), daemon=True).start()
        threading.Thread(target=copy, args=(secure, plain), daemon=True).start()

    def accept():
        while True:
            plain, _ = listener.accept()
            carry(plain)

    threading.Thread(target=accept, daemon=True).start()
    flint.emit("listening", port=listener.getsockname()[1])
    lines = flint.commands()
    while lines.get() != "stop":
        pass
    flint.emit("ended")


main()
