"""Sets keys at rank 0's rendezvous, as a rank or rank 0 itself would. Frames: src/comm/rendezvous_frame.h."""
from __future__ import annotations

import re
import socket
import struct

HELLO, SET, OK, REFUSAL = 1, 2, 16, 18


def build_of_rank_zero(address: str, port: int, token: str) -> str:
    """As it tells a rank of another build."""
    try:
        with Store(address, port, token, {"rank": "1"}):
            raise AssertionError("a rank that says nothing about itself was welcome")
    except Refused as refused:
        return re.search(r'version differs: rank 0 has "([^"]+)"', str(refused))[1]


class Refused(Exception):
    pass


class Store:
    def __init__(self, address: str, port: int, token: str, facts: dict[str, str]):
        self.connection = socket.create_connection((address, port), timeout=60)
        self._ask(HELLO, token, *(f"{name}={value}" for name, value in facts.items()))

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def set(self, key: str, value: str) -> None:
        self._ask(SET, key, value)

    def _ask(self, kind: int, *strings: str) -> None:
        body = bytes([kind]) + b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in strings)
        self.connection.sendall(struct.pack("<I", len(body)) + body)
        answer = self._receive(struct.unpack("<I", self._receive(4))[0])
        if answer[0] == REFUSAL:
            self.connection.close()
            raise Refused(answer[5:].decode())
        assert answer[0] == OK, answer

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.connection.recv(count - len(data))
            assert part, "rank 0 closed the connection"
            data += part
        return data
