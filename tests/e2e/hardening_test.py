"""Hostile and clumsy clients over raw sockets: each is refused or bounded, and nobody else notices."""
from __future__ import annotations

import contextlib
import http.client
import json
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from serving import REPOSITORY, Server

HOST = "Host: h\r\n"
POST = "POST /tokenize HTTP/1.1\r\n" + HOST
BODY = '{"prompt":"a"}'
# A second request hidden where only one party would see it: no answer may ever be its.
HIDDEN = "GET /version HTTP/1.1\r\n" + HOST + "\r\n"
# An idle connection holds a few small objects; its read buffer is its thread's. Kernel memory is not counted.
MAX_IDLE_CONNECTION_BYTES = 8192

REFUSED = [  # name, bytes, status
    ("length beside coding", POST + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("coding beside length", POST + "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    ("two lengths", POST + "Content-Length: 0\r\nContent-Length: 40\r\n\r\n" + HIDDEN, 400),
    ("two equal lengths", POST + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + HIDDEN, 400),
    ("list of lengths", POST + "Content-Length: 0, 0\r\n\r\n" + HIDDEN, 400),
    ("signed length", POST + "Content-Length: +0\r\n\r\n" + HIDDEN, 400),
    ("hex length", POST + "Content-Length: 0x0\r\n\r\n" + HIDDEN, 400),
    ("length without end", POST + "Content-Length: 99999999999999999999\r\n\r\n", 400),
    ("unknown coding", POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 501),
    ("two codings", POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 501),
    ("coding in HTTP/1.0", "POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 501),
    ("blank before colon", POST + "Content-Length : 0\r\n\r\n" + HIDDEN, 400),
    ("folded header", POST + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n" + HIDDEN, 400),
    ("folded first line", "POST /tokenize HTTP/1.1\r\n X: a\r\n" + HOST + "\r\n" + HIDDEN, 400),
    ("bare line feeds", "GET /version HTTP/1.1\n" + "Host: h\n\n", 400),
    ("bare line feed in a header", POST + "X: a\nContent-Length: 0\r\n\r\n" + HIDDEN, 400),
    ("bare carriage return", POST + "X: a\rContent-Length: 0\r\n\r\n" + HIDDEN, 400),
    ("null in a header", POST + "X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN, 400),
    ("bad chunk size", POST + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + HIDDEN, 400),
    ("negative chunk size", POST + "Transfer-Encoding: chunked\r\n\r\n-1\r\n" + HIDDEN, 400),
    ("huge chunk size", POST + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + HIDDEN, 400),
    ("chunk longer than said", POST + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + HIDDEN, 400),
    ("HTTP/0.9", "GET /version\r\n\r\n" + HIDDEN, 400),
    ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/3.0", "GET /version HTTP/3.0\r\n" + HOST + "\r\n" + HIDDEN, 505),
    ("authority form", "CONNECT h:80 HTTP/1.1\r\n" + HOST + "\r\n" + HIDDEN, 400),
    ("no host", "GET /version HTTP/1.1\r\n\r\n" + HIDDEN, 400),
    ("two hosts", "GET /version HTTP/1.1\r\n" + HOST + HOST + "\r\n" + HIDDEN, 400),
    ("unknown expectation", POST + "Expect: tea\r\nContent-Length: 0\r\n\r\n", 417),
    ("escaped control character", "GET /v%0d%0aX: HTTP/1.1\r\n" + HOST + "\r\n" + HIDDEN, 400),
    ("broken escape", "GET /%zz HTTP/1.1\r\n" + HOST + "\r\n" + HIDDEN, 400),
    ("header of 100 KB", "GET /version HTTP/1.1\r\n" + HOST + "X: " + "a" * 100_000 + "\r\n\r\n", 431),
    ("first line of 100 KB", "GET /" + "a" * 100_000 + " HTTP/1.1\r\n" + HOST + "\r\n", 431),
    ("300 headers", "GET /version HTTP/1.1\r\n" + HOST + "".join(f"X{i}: 1\r\n" for i in range(300)) + "\r\n", 431),
    ("body of 100 MB announced", POST + "Content-Length: 100000000\r\n\r\n", 413),
    ("body of 100 MB expected", POST + "Expect: 100-continue\r\nContent-Length: 100000000\r\n\r\n", 413),
]

ANSWERED = [  # name, bytes, status: odd but clear
    ("absolute form", "GET http://elsewhere/version HTTP/1.1\r\n" + HOST + "\r\n", 200),
    ("asterisk form", "OPTIONS * HTTP/1.1\r\n" + HOST + "\r\n", 200),
    ("unknown method", "BREW /version HTTP/1.1\r\n" + HOST + "\r\n", 405),
    ("wrong method", "GET /v1/completions HTTP/1.1\r\n" + HOST + "\r\n", 405),
    ("folder", "GET /v1/ HTTP/1.1\r\n" + HOST + "\r\n", 404),
    ("folder above", "GET /v1/../version HTTP/1.1\r\n" + HOST + "\r\n", 404),
    ("file system", "GET /../../etc/passwd HTTP/1.1\r\n" + HOST + "\r\n", 404),
    ("two slashes", "GET //version HTTP/1.1\r\n" + HOST + "\r\n", 404),
    ("invalid UTF-8 in the path", b"GET /%ff%fe\xff HTTP/1.1\r\n" + HOST.encode() + b"\r\n", 404),
    ("invalid UTF-8 in a header", b"GET /version HTTP/1.1\r\nX-Request-Id: \xff\xfe\r\n" + HOST.encode() + b"\r\n", 200),
    ("invalid UTF-8 in the body", POST.encode() + b"Content-Length: 14\r\n\r\n{\"prompt\":\"\xff\"}", 400),
    ("10,000 nested arrays", POST + "Content-Length: 20000\r\n\r\n" + "[" * 10_000 + "]" * 10_000, 400),
    ("chunked body", POST + "Transfer-Encoding: chunked\r\n\r\n" + f"{len(BODY):x};x=y\r\n{BODY}\r\n0\r\nT: t\r\n\r\n", 200),
    ("wrong content type", POST + f"Content-Type: text/plain\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}", 415),
]


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def exchange(server: Server, sent: str | bytes, half_close: bool = True) -> bytes:
    """Everything the server says to these bytes."""
    with socket.create_connection((server.host, server.port), timeout=60) as client:
        received = b""
        with contextlib.suppress(ConnectionError):  # the answer may come before all is sent
            client.sendall(as_bytes(sent))
            if half_close:
                client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65536):
                received += piece
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


def rss_bytes(server: Server) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) * 1024


class Hardening(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server().__enter__()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.stop()

    def tearDown(self) -> None:
        self.assertEqual(self.server.call("GET", "/health")[0], 200)

    def test_what_could_be_read_two_ways_is_refused_and_ends_the_connection(self) -> None:
        for name, sent, status in REFUSED:
            with self.subTest(name):
                received = exchange(self.server, sent)
                self.assertEqual(statuses(received), [status], received[:300])
                head, body = received.split(b"\r\n\r\n", 1)
                self.assertIn(b"Connection: close", head)
                self.assertEqual(json.loads(body)["error"]["code"], status)

    def test_what_is_odd_but_clear_is_answered(self) -> None:
        for name, sent, status in ANSWERED:
            with self.subTest(name):
                received = exchange(self.server, sent)
                self.assertEqual(statuses(received), [status], received[:300])
                if status >= 400:
                    self.assertEqual(json.loads(received.split(b"\r\n\r\n", 1)[1])["error"]["code"], status)

    def test_endless_chunks_end(self) -> None:
        """The refusal comes at the limit; what the client still sends is read away for 2 s, so that it sees the answer."""
        with socket.create_connection((self.server.host, self.server.port), timeout=60) as client:
            client.sendall((POST + "Transfer-Encoding: chunked\r\n\r\n").encode())
            piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
            for _ in range(70):  # a body may have 64 MiB
                client.sendall(piece)
            self.assertEqual(statuses(client.recv(65536)), [413])
            with self.assertRaises((ConnectionError, BrokenPipeError)):
                for _ in range(100_000):
                    client.sendall(piece)

    def test_requests_sent_ahead_are_answered_in_order(self) -> None:
        prompts = [f"word{i} " * (1 + i % 5) for i in range(40)]
        bodies = [json.dumps({"prompt": prompt}) for prompt in prompts]
        sent = "".join(POST + f"Content-Length: {len(body)}\r\n\r\n{body}" for body in bodies)
        received = exchange(self.server, sent)
        self.assertEqual(statuses(received), [200] * len(bodies))
        counts = [int(count) for count in re.findall(rb'"count":(\d+)', received)]
        expected = [self.server.post("/tokenize", {"prompt": prompt})["count"] for prompt in prompts]
        self.assertEqual(counts, expected)

    def test_continue_is_said_once_and_only_when_wanted(self) -> None:
        with socket.create_connection((self.server.host, self.server.port), timeout=60) as client:
            client.sendall((POST + f"Expect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n").encode())
            self.assertEqual(client.recv(65536), b"HTTP/1.1 100 Continue\r\n\r\n")
            client.sendall(BODY.encode())
            self.assertEqual(statuses(client.recv(65536)), [200])

    def test_slow_senders_hold_up_nobody(self) -> None:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(socket.create_connection((self.server.host, self.server.port)))
                    for _ in range(200)]
            for i, client in enumerate(slow):
                client.sendall(b"POST /tokenize HTTP/1.1\r\nHos" if i % 2 else POST.encode() + b"Content-Length: 99\r\n\r\n{")
            for byte in b"abcdef":
                for client in slow:
                    client.sendall(bytes([byte]))
                self.assertGreater(self.server.post("/tokenize", {"prompt": "a"})["count"], 0)

    def test_idle_connections_are_small(self) -> None:
        wanted = 2000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * wanted)), hard))
        wanted = min(wanted, min(hard, max(soft, 4 * wanted)) - 200)
        with contextlib.ExitStack() as stack:
            exchange(self.server, "GET /version HTTP/1.1\r\n" + HOST + "\r\n")
            before = rss_bytes(self.server)
            for _ in range(wanted):
                client = stack.enter_context(socket.create_connection((self.server.host, self.server.port), timeout=60))
                client.sendall(b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n")
                self.assertEqual(statuses(client.recv(65536)), [200])
            each = (rss_bytes(self.server) - before) / wanted
            self.assertLess(each, MAX_IDLE_CONNECTION_BYTES)
            print(f"{wanted} idle connections, {each:.0f} bytes each")


class Limits(unittest.TestCase):
    def test_connections_headers_and_bodies_have_theirs(self) -> None:
        args = ("--max-connections", "20", "--header-timeout", "1", "--body-timeout", "1")
        with Server(args=args) as server, contextlib.ExitStack() as stack:
            slow = stack.enter_context(socket.create_connection((server.host, server.port), timeout=60))
            slow.sendall(b"GET /version HT")
            self.assertEqual(statuses(slow.recv(65536)), [408])
            slow = stack.enter_context(socket.create_connection((server.host, server.port), timeout=60))
            slow.sendall(POST.encode() + b"Content-Length: 99\r\n\r\n{")
            self.assertEqual(statuses(slow.recv(65536)), [408])
            idle = [stack.enter_context(socket.create_connection((server.host, server.port), timeout=60))
                    for _ in range(25)]
            self.assertIn(503, [status for client in idle[20:] for status in statuses(client.recv(65536))])
            for client in idle:
                client.close()
            deadline = time.monotonic() + 30
            while server.call("GET", "/health")[0] != 200:
                self.assertLess(time.monotonic(), deadline)


class Ending(unittest.TestCase):
    def stream(self, server: Server, results: list, **body: object) -> threading.Thread:
        def run() -> None:
            results.append(server.call("POST", "/v1/completions", {
                "prompt": "Count: 1, 2,", "max_tokens": 200, "ignore_eos": True, "stream": True, **body}))
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def wait_until_busy(self, server: Server) -> None:
        deadline = time.monotonic() + 60
        while True:
            text = server.call("GET", "/metrics")[2]
            running = re.search(r"^vllm:num_requests_running\S* (\S+)$", text, re.M)
            if running and float(running.group(1)) > 0:
                return
            self.assertLess(time.monotonic(), deadline)

    def test_a_drain_ends_running_and_queued_requests_and_tells_new_ones(self) -> None:
        with Server(args=("--max-num-seqs", "1", "--shutdown-timeout", "120")) as server:
            results: list = []
            streams = [self.stream(server, results) for _ in range(3)]
            self.wait_until_busy(server)
            while server.call("GET", "/load")[2] != '{"server_load":3}' and any(t.is_alive() for t in streams):
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            told = []
            with contextlib.suppress(OSError, http.client.HTTPException):  # until the process ends
                while True:
                    status, headers, _ = server.call("GET", "/health")
                    if status == 503:
                        told.append((status, headers.get("Connection")))
                        self.assertEqual(server.call("POST", "/v1/completions", {"prompt": "a"})[0], 503)
            for thread in streams:
                thread.join()
            self.assertEqual(server.process.wait(timeout=60), 0)
            self.assertEqual([status for status, _, _ in results], [200] * 3)
            for _, _, text in results:
                self.assertTrue(text.endswith("data: [DONE]\n\n"))
                self.assertIn('"finish_reason":"length"', text)
                self.assertNotIn('"error"', text)
            self.assertIn((503, "close"), told)

    def test_a_second_signal_ends_at_once(self) -> None:
        with Server(args=("--shutdown-timeout", "600")) as server:
            with socket.create_connection((server.host, server.port), timeout=60) as client:
                body = json.dumps({"prompt": "a", "max_tokens": 1500, "ignore_eos": True, "stream": True})
                client.sendall(f"POST /v1/completions HTTP/1.1\r\n{HOST}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                client.recv(100)
                server.process.send_signal(signal.SIGTERM)
                deadline = time.monotonic() + 60
                while server.call("GET", "/health")[0] != 503:  # the first has been seen: signals of a kind do not queue
                    self.assertLess(time.monotonic(), deadline)
                server.process.send_signal(signal.SIGTERM)
                self.assertEqual(server.process.wait(timeout=20), 128 + signal.SIGTERM)


class Sockets(unittest.TestCase):
    def test_https_with_client_certificates(self) -> None:
        if shutil.which("openssl") is None:
            print("skipped: no openssl program to make certificates with")
            return
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = f"{folder}/cert.pem", f"{folder}/key.pem"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                            "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                           check=True, capture_output=True)
            args = ("--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-ca-certs", certificate,
                    "--ssl-cert-reqs", "2")
            with Server(args=args) as server:
                trusting = ssl.create_default_context(cafile=certificate)
                with self.assertRaises((ssl.SSLError, OSError)):
                    self.get(server, trusting)
                trusting.load_cert_chain(certificate, key)
                self.assertEqual(self.get(server, trusting), 200)
                self.assertEqual(statuses(exchange(server, "GET /version HTTP/1.1\r\n" + HOST + "\r\n")), [400])

    def get(self, server: Server, context: ssl.SSLContext) -> int:
        connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=60)
        try:
            connection.request("GET", "/version")
            return connection.getresponse().status
        finally:
            connection.close()

    def test_unix_socket(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/hadal.sock"
            binary = Server().command[0]
            process = subprocess.Popen([binary, "serve", "--model", "models/nano", "--uds", path], cwd=REPOSITORY,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                deadline = time.monotonic() + 120
                received = b""
                while b"200 OK" not in received:
                    self.assertLess(time.monotonic(), deadline)
                    self.assertIsNone(process.poll())
                    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                        client.settimeout(60)
                        client.connect(path)
                        client.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
                        received = client.recv(65536)
                    time.sleep(0.05)
            finally:
                process.terminate()
                self.assertEqual(process.wait(timeout=60), 0)
            self.assertFalse(Path(path).exists())


if __name__ == "__main__":
    unittest.main()
