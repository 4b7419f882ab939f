"""hadal chat: in a terminal (a pty), through pipes, with the model in the process and behind a URL."""
import contextlib
import http.server
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from quickstart_test import ASK_CHINESE, ASK_ENGLISH, right_pairs
from serving import REPOSITORY, Server

HADAL = str(Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`hadal chat` in a pty, as a context manager. `text` is all that it printed."""

    def __init__(self, *args: str, env: dict[str, str]):
        self.args, self.env, self.text, self.seen = args, {**os.environ, "TERM": "xterm", **env}, "", 0

    def __enter__(self) -> "Terminal":
        master, slave = pty.openpty()
        self.master = master
        self.process = subprocess.Popen([HADAL, "chat", *self.args], cwd=REPOSITORY, env=self.env, stdin=slave, stdout=slave,
                                        stderr=slave, start_new_session=True, preexec_fn=lambda: self.own(slave))
        os.close(slave)
        return self

    @staticmethod
    def own(slave: int) -> None:
        import fcntl
        import termios
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)  # so that Ctrl-C becomes a signal

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    def read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw = getattr(self, "raw", b"") + data
        self.text = self.raw.decode("utf-8", "replace")
        return bool(data)

    def expect(self, pattern: str, seconds: float = 60) -> str:
        """Waits for the pattern after what was expected before; -> what stands between."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.compile(pattern).search(self.text, self.seen)
            if match:
                between = self.text[self.seen:match.start()]
                self.seen = match.end()
                return between
            if time.monotonic() > deadline or not self.read(0.2):
                raise AssertionError(f"{pattern!r} did not come after: {self.text[self.seen:]!r}")

    def send(self, text: str) -> None:
        os.write(self.master, text.encode())

    def ask(self, line: str) -> str:
        """-> what was printed between the line and the next prompt, without escape sequences."""
        self.send(line + "\r")
        self.expect(r"\x1b\[\?2004l")  # the line is taken
        return ESCAPES.sub("", self.expect(r"\x1b\[\?2004h")).replace("\r", "")

    def ended(self, seconds: float = 20) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read(0.1)
        return self.process.wait(timeout=1)


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers "1 2 3 .." without end to "endless", else repeats the question after a thought."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply({"data": [{"id": "scripted", "max_model_len": 4096}]})

    def reply(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        question = body["messages"][-1]["content"]
        if question == "refuse":
            return self.reply({"error": {"message": "maximum context length is 4096"}}, 400)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.delta(reasoning_content="Let me see. \x1b[31m")
            number = 0
            while question == "endless":
                number += 1
                self.delta(content=f"{number} ")
                time.sleep(0.02)
            self.delta(content=f"You said: {question}")
            self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            self.event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.left.set()

    def delta(self, **delta):
        self.event({"choices": [{"index": 0, "delta": delta}]})

    def event(self, event):
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()


@contextlib.contextmanager
def scripted_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.daemon_threads = True
    server.bodies, server.left = [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def pipe(*args: str, text: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([HADAL, "chat", *args], input=text, capture_output=True, text=True, cwd=REPOSITORY, timeout=120,
                          env={**os.environ, **(env or {})})


class Conversation(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "tmp").mkdir()
        self.env = {"XDG_STATE_HOME": folder.name, "TMPDIR": str(self.folder / "tmp"), "NO_COLOR": ""}

    def test_model_in_the_process(self):
        with Terminal("--model", "models/nano", "--set", "temperature=0", env=self.env) as terminal:
            terminal.expect(r"models/nano · \d+ tokens of context")
            terminal.expect(r"\x1b\[\?2004h")
            before = len(terminal.text)
            answer = terminal.ask(ASK_ENGLISH)
            self.assertGreaterEqual(len(right_pairs(answer)), 3, answer)
            # No rate where all tokens arrived at once.
            self.assertRegex(answer, r"first token \d+\.\d\d s · ([\d.]+ tokens/s · )?\d+ tokens\n")
            shown = terminal.text[before:]
            self.assertLess(shown.index("\x1b[2m"), shown.rindex("first token"))  # thoughts are dimmed
            self.assertGreater(shown.count("\x1b[2m"), 2)
            self.assertGreaterEqual(len(right_pairs(terminal.ask(ASK_CHINESE))), 3)
            self.assertIn("did you mean /system?", terminal.ask("/sytem x"))
            self.assertIn("2 answers", terminal.ask("/stats"))
            saved = self.folder / "saved.json"
            self.assertIn("saved 4 messages", terminal.ask(f"/save {saved}"))
            messages = json.loads(saved.read_text())["messages"]
            self.assertEqual([message["role"] for message in messages], ["user", "assistant"] * 2)
            self.assertEqual(messages[2]["content"], ASK_CHINESE)
            self.assertTrue(messages[1]["reasoning_content"])
            terminal.ask("/clear")
            self.assertIn("4 messages", terminal.ask(f"/load {saved}"))
            again = terminal.ask("/regenerate")
            self.assertIn(messages[3]["content"].split("\n")[0], again)
            terminal.send("/quit\r")
            self.assertEqual(terminal.ended(), 0)
        self.assertEqual(list((self.folder / "tmp").iterdir()), [])
        history = self.folder / "hadal/chat_history"
        self.assertEqual(history.stat().st_mode & 0o777, 0o600)
        self.assertIn(ASK_CHINESE, history.read_text())

    def test_ctrl_c_stops_the_answer_and_not_the_program(self):
        with scripted_server() as server, Terminal("--base-url", server.url + "/v1", env=self.env) as terminal:
            terminal.expect("scripted · 4096 tokens of context")
            terminal.expect(r"\x1b\[\?2004h")
            terminal.send("endless\r")
            terminal.expect("5 6 7 ")
            terminal.send("\x03")
            terminal.expect(r"first token .* stopped")
            self.assertTrue(server.left.wait(10))
            terminal.expect(r"\x1b\[\?2004h")
            self.assertIn("You said: next", terminal.ask("next"))
            roles = [message["role"] for message in server.bodies[-1]["messages"]]
            self.assertEqual(roles, ["user", "assistant", "user"])
            self.assertIn("maximum context length is 4096", terminal.ask("refuse"))
            terminal.send("half a line\x03")
            terminal.expect("half a line")
            terminal.send("\x03")
            terminal.expect("Ctrl-C again")
            terminal.send("\x03")
            self.assertEqual(terminal.ended(), 0)

    def test_commands_change_the_request(self):
        with scripted_server() as server, Terminal("--base-url", server.url, "--model", "named", env=self.env) as terminal:
            terminal.expect(r"\x1b\[\?2004h")
            terminal.ask("/system Be brief.")
            terminal.ask("/set temperature 0.6")
            terminal.ask("/thinking off")
            for line in ("one\\", "two"):
                terminal.send(line + "\r")
            terminal.expect("You said: one\r\ntwo")
            terminal.expect(r"\x1b\[\?2004h")
            body = server.bodies[-1]
            self.assertEqual(body["model"], "named")
            self.assertEqual(body["messages"], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one\ntwo"}])
            self.assertEqual(body["temperature"], 0.6)
            self.assertEqual(body["chat_template_kwargs"]["thinking"], False)
            self.assertNotIn("\x1b[31m", terminal.text)  # the model's text moves no cursor
            terminal.send("\x1b[200~pasted\nlines\x1b[201~\r")
            terminal.expect("You said: pasted\r\nlines")
            terminal.expect(r"\x1b\[\?2004h")
            terminal.send("\x1b[A\x1b[A\x7f!\r")  # two lines back, its last letter replaced
            terminal.expect("You said: one\r\ntw!")
            terminal.expect(r"\x1b\[\?2004h")
            terminal.send("\x04")
            self.assertEqual(terminal.ended(), 0)

    def test_no_colour_where_it_is_not_wanted(self):
        with scripted_server() as server:
            with Terminal("--base-url", server.url, env={**self.env, "NO_COLOR": "1"}) as terminal:
                terminal.expect(r"\x1b\[\?2004h")
                answer = terminal.ask("hi")
                self.assertIn("[thinking] Let me see. [31m", answer)
                self.assertIn("[answer] You said: hi", answer)
                self.assertNotIn("\x1b[2m", terminal.text)

    def test_signal_leaves_nothing_behind(self):
        with Terminal("--model", "models/nano", env=self.env) as terminal:
            terminal.expect(r"\x1b\[\?2004h")
            self.assertEqual(len(list((self.folder / "tmp").iterdir())), 1)
            terminal.process.send_signal(signal.SIGTERM)
            self.assertEqual(terminal.ended(), 128 + signal.SIGTERM)
            self.assertIn("\x1b[?2004l", terminal.text)  # the terminal is as before
        self.assertEqual(list((self.folder / "tmp").iterdir()), [])


class Pipe(unittest.TestCase):
    def test_answer_alone_equals_the_servers(self):
        with Server(args=("--api-key", "sesame")) as server:
            key = {"Authorization": "Bearer sesame"}
            body = {"messages": [{"role": "user", "content": ASK_ENGLISH}], "temperature": 0}
            expected = json.loads(server.call("POST", "/v1/chat/completions", body, key)[2])["choices"][0]["message"]["content"]
            for args in (("--model", "models/nano"), ("--base-url", f"{server.url}/v1", "--api-key", "sesame")):
                with self.subTest(args=args):
                    done = pipe(*args, "--set", "temperature=0", text=ASK_ENGLISH + "\n")
                    self.assertEqual((done.returncode, done.stdout), (0, expected.strip("\n") + "\n"), done.stderr)
            done = pipe("--base-url", server.url, "--prompt", ASK_ENGLISH, "--set", "temperature=0", "--json",
                        env={"OPENAI_API_KEY": "sesame"})
            answer = json.loads(done.stdout)
            self.assertEqual(answer["content"], expected)
            self.assertEqual(answer["finish_reason"], "stop")
            self.assertTrue(answer["reasoning_content"])
            self.assertGreater(answer["completion_tokens"], 10)
            self.assertGreater(answer["first_token_s"], 0)
            cut = pipe("--base-url", server.url, "--api-key", "sesame", "--set", "max_tokens=2", text=ASK_ENGLISH)
            self.assertEqual(cut.returncode, 0)
            self.assertIn("cut at max_tokens", cut.stderr)
            wrong = pipe("--base-url", server.url, "--api-key", "open", text="x")
            self.assertEqual((wrong.returncode, wrong.stdout), (1, ""))
            self.assertIn("401", wrong.stderr)

    def test_errors_say_what_to_do(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
            cases = [
                (("--base-url", nobody), "x", 1, nobody),
                (("--base-url", "gopher://x"), "x", 2, "gopher://x"),
                ((), "x", 2, "--model DIR"),
                (("--model", "no/such/folder"), "x", None, "no/such/folder"),
                (("--model", "models/nano"), "", 2, "standard input is empty"),
                (("--model", "models/nano", "--set", "temprature=1"), "x", 2, "did you mean temperature?"),
                (("--model", "models/nano", "--set", "top_k"), "x", 2, "NAME=VALUE"),
                (("--model", "models/nano", "--thinking", "maybe"), "x", 2, "maybe"),
                (("--modle", "models/nano"), "x", 2, "--model"),
            ]
            for args, text, code, message in cases:
                with self.subTest(args=args):
                    done = pipe(*args, text=text)
                    self.assertIn(message, done.stderr)
                    self.assertEqual(done.stdout, "")
                    if code is not None:
                        self.assertEqual(done.returncode, code, done.stderr)
                    self.assertNotEqual(done.returncode, 0)
            for flag, value in (("--numerics", "reference"), ("--max-model-len", "512")):
                with self.subTest(flag=flag):
                    done = pipe("--base-url", nobody, flag, value, text="x")
                    self.assertRegex(done.stderr, f"{flag} excludes --base-url|--base-url excludes {flag}")
                    self.assertEqual((done.returncode, done.stdout), (2, ""))


if __name__ == "__main__":
    unittest.main()
