"""A name server for the benchmarks: it answers every question with NXDOMAIN.

But for 127.0.0.2, which a healthy block list contains (RFC 5782, 5).  Run by
bench/messages.py: ``PORT``.
"""

from __future__ import annotations

import socket
import struct
import sys

# SOA of the root, as the authority; then OPT.
_NUMBERS = struct.pack("!IIIII", 1, 3600, 600, 86400, 60)
_SOA = b"\0" + struct.pack("!HHIH", 6, 1, 60, 22) + b"\0\0" + _NUMBERS
_OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
_LISTED = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((127, 0, 0, 2))
_TEST_POINT = b"\x012\x010\x010\x03127"


def answer(message: bytes) -> bytes:
    """Return the answer to a question."""
    end = message.index(b"\0", 12) + 5
    question = message[12:end]
    is_found = question.startswith(_TEST_POINT) and question[-4:-2] == b"\0\1"
    flags = b"\x81\x80" if is_found else b"\x81\x83"
    counts = struct.pack("!HHHH", 1, is_found, not is_found, 1)
    record = _LISTED if is_found else _SOA
    return message[:2] + flags + counts + question + record + _OPT


def serve(port: int) -> None:
    """Serve for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.bind(("127.0.0.1", port))
        while True:
            message, client = server.recvfrom(4096)
            server.sendto(answer(message), client)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
