"""A rank is lost: streams end with an error, requests without a token are answered later, and the server is ready again
by itself, as often as it is allowed to."""
import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

from ranks import PATIENCE_S, answer_of, fixed_requests, health, num_restarts, pids_by_rank, ranked, wait_until
from serving import REPOSITORY, Server, children, is_running
from store import Store, build_of_rank_zero

LONG_ANSWER = {"prompt": "Once upon a time", "max_tokens": 30000, "temperature": 0, "ignore_eos": True}


class Stream:
    """A streamed answer, read by a thread of its own."""

    def __init__(self, server: Server, body: dict):
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
        self.connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}),
                                {"Content-Type": "application/json"})
        self.events: list[str] = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        for line in self.connection.getresponse():
            if line.startswith(b"data: "):
                self.events.append(line[6:].decode().strip())
        self.connection.close()

    def end(self) -> list[str]:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "a stream hangs"
        return self.events


class Failure(unittest.TestCase):
    def lose_a_rank(self, server: Server, how: signal.Signals) -> None:
        """With a stream under way and requests that wait for it to end."""
        expected = [answer_of(server, request) for request in fixed_requests()[:2]]
        stream = Stream(server, LONG_ANSWER)
        wait_until("the stream has tokens", lambda: len(stream.events) > 3)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(answer_of, server, request) for request in fixed_requests()[:2]]
            wait_until("they wait", lambda: self.num_waiting(server) == 2)
            victim = max(children(server.process.pid))
            os.kill(victim, how)
            # A rank of nano may be back before anybody has asked.
            wait_until("noticed", lambda: health(server)[0] == 503 or num_restarts(server) == 1)
            events = stream.end()
            self.assertEqual(events[-1], "[DONE]")
            self.assertIn("error", json.loads(events[-2]), (len(events), events[-3:], server.lines[-20:]))
            self.assertIn("rank", json.loads(events[-2])["error"]["message"])
            self.assertEqual([future.result(PATIENCE_S) for future in waiting], expected)
            self.assertEqual(num_restarts(server), 1)
        wait_until("ready again", lambda: health(server)[0] == 200)
        self.assertEqual([answer_of(server, request) for request in fixed_requests()[:2]], expected)
        self.assertNotIn(victim, children(server.process.pid))

    @staticmethod
    def num_waiting(server: Server) -> int:
        _, _, text = server.call("GET", "/metrics")
        return sum(int(float(line.split()[-1])) for line in text.splitlines()
                   if line.startswith("vllm:num_requests_waiting{"))

    def test_killed(self):
        with ranked(2, "--max-num-seqs", "1", "--rank-timeout", "5") as server:
            self.lose_a_rank(server, signal.SIGKILL)
            self.assertTrue(any("rank 1 (node 0)" in line and "signal 9" in line for line in server.lines), server.lines)

    def test_frozen(self):
        with ranked(2, "--max-num-seqs", "1", "--rank-timeout", "2") as server:
            self.lose_a_rank(server, signal.SIGSTOP)

    def test_killed_while_idle(self):
        with ranked(2) as server:
            os.kill(pids_by_rank(server)[1], signal.SIGKILL)
            wait_until("a restart", lambda: num_restarts(server) == 1)
            wait_until("ready again", lambda: health(server)[0] == 200)
            answer_of(server, fixed_requests()[0])

    def test_too_often(self):
        with ranked(2, "--restart-limit", "1") as server:
            os.kill(children(server.process.pid)[0], signal.SIGKILL)
            wait_until("a restart", lambda: num_restarts(server) == 1)
            wait_until("ready", lambda: health(server)[0] == 200)
            os.kill(children(server.process.pid)[0], signal.SIGKILL)
            server.process.wait(PATIENCE_S)
            self.assertEqual(server.process.returncode, 1)
            wait_until("the reason", lambda: any("limit of --restart-limit" in line for line in server.lines))
            reason = next(line for line in server.lines if "limit of --restart-limit" in line)
            self.assertRegex(reason, r"rank 1 \(node 0\): ended: signal 9 \(Killed\)")

    def test_who_waits_when_it_is_given_up_is_not_made_to_wait_again(self):
        with ranked(2, "--max-num-seqs", "1", "--rank-timeout", "6", "--join-timeout", "8") as server:
            stream = Stream(server, LONG_ANSWER)
            wait_until("the stream has tokens", lambda: len(stream.events) > 3)
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                os.kill(pids_by_rank(server)[1], signal.SIGSTOP)
                wait_until("noticed", lambda: health(server)[0] == 503)
                waiting = pool.submit(server.call, "POST", *fixed_requests()[0])
                self.assertEqual(waiting.result(PATIENCE_S)[0], 500)
            stream.end()
            server.process.wait(PATIENCE_S)
            self.assertEqual(server.process.returncode, 1)
        given_up = [line for line in server.lines if "did not come within" in line and "serves no more" not in line]
        self.assertEqual(len(given_up), 1, given_up)

    def test_ranks_end_with_rank_zero(self):
        with ranked(2) as server:
            rank = pids_by_rank(server)[1]
            os.kill(server.process.pid, signal.SIGKILL)
            wait_until("rank 1 ends", lambda: not is_running(rank))

    def test_ranks_end_with_the_server(self):
        with ranked(2) as server:
            rank = pids_by_rank(server)[1]
            self.assertEqual(server.stop(signal.SIGTERM), 0)
            self.assertFalse(is_running(rank))

    def test_a_contract_that_contradicts_the_flags(self):
        server = ranked(2)
        ended = subprocess.run(server.command, capture_output=True, text=True, timeout=PATIENCE_S, cwd="../..",
                               env={**server.env, "HADAL_RANK": "0", "HADAL_WORLD_SIZE": "4"})
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("HADAL_WORLD_SIZE=4", ended.stderr)


class Orders(unittest.TestCase):
    """Rank 0 tells the agent of another node which process does not answer and is to be ended."""
    env = {"HADAL_AUTH_TOKEN": "sesame"}
    nodes = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--rank-interface", "lo")

    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.server = ranked(2, *self.nodes, "--node-rank", "0", "--master-port", str(self.port), env=self.env)
        self.log = tempfile.TemporaryFile("w+")
        self.addCleanup(self.log.close)
        command = [self.server.command[0], "worker", *self.nodes, "--tensor-parallel-size", "2", "--node-rank", "1",
                   "--master-port", str(self.port)]
        self.agent = subprocess.Popen(command, cwd=REPOSITORY, env=self.server.env, stdout=self.log, stderr=self.log)
        self.addCleanup(self.agent.wait)
        self.addCleanup(self.agent.kill)

    def told(self) -> list[str]:
        self.log.seek(0)
        return [line for line in self.log.read().splitlines() if "does not answer" in line]

    def test_only_the_named_process_is_ended(self):
        with self.server as server:
            expected = answer_of(server, fixed_requests()[0])
            rank, = children(self.agent.pid)
            group = ("127.0.0.1", self.port, self.env["HADAL_AUTH_TOKEN"])
            with Store(*group, {"rank": "1", "version": build_of_rank_zero(*group), "world size": "2"}) as store:
                store.set("end/1/0", json.dumps({"rank": 1, "pid": self.agent.pid}))  # of a rank that has ended since
                store.set("end/1/1", json.dumps({"rank": 1, "pid": rank}))
            wait_until("a new process", lambda: rank not in children(self.agent.pid) and num_restarts(server) == 1)
            wait_until("ready again", lambda: health(server)[0] == 200)
            self.assertEqual(answer_of(server, fixed_requests()[0]), expected)
        self.assertEqual(len(self.told()), 1, self.told())
        self.assertIn(f"rank 1 (process {rank})", self.told()[0])


if __name__ == "__main__":
    unittest.main()
