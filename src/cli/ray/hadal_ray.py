"""Starts and watches hadal's agents on the nodes of a Ray cluster. `hadal serve --distributed-executor-backend ray` holds
this file and runs it with the interpreter of the `ray` command.

One JSON object a line. Orders on stdin, whose end is the end of all agents:
  {"op": "prepare", "world_size": 16, "nnodes": 0, "program": "/usr/bin/hadal"}   once; nnodes 0: as many as there are
  {"op": "start", "node": 1, "argv": [..], "env": {..}}                           again after "exited" or "lost"
  {"op": "kill", "node": 1}
Events on stdout ("node" counts from 0, the node of this process, where no agent is started):
  {"event": "layout", "ranks_per_node": [8, 8], "address": "10.0.0.1", "nodes": ["10.0.0.1", "10.0.0.2"]}
  {"event": "started" | "log" | "exited" | "lost", "node": 1, "what": ".."}
  {"event": "warning", "what": ".."}
  {"event": "error", "code": "unavailable" | "resource_exhausted" | "invalid_argument", "what": ".."}   instead of layout

Ray places, starts and watches processes. No tensor and nothing that belongs to a token passes through it.
"""
from __future__ import annotations

import collections
import ctypes
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import Any, Iterator, NamedTuple

MOST_LINE_BYTES = 4096  # of an agent's log; the rest of a longer line is left out
MOST_LINES = 1000       # that wait to be fetched
BATCH_LINES = 200       # fetched at once
POLL_SECONDS = 10       # an idle agent's watcher asks this often
PLACE_SECONDS = 60      # for Ray to reserve the nodes
CLOSE_SECONDS = 5       # for agents to end their processes; those of an actor that dies end with it
CHECK_SECONDS = 120     # for an actor to start on a node and read the program there


class Refusal(Exception):
    """Why it cannot be done, and what to do."""

    def __init__(self, code: str, what: str):
        super().__init__(what)
        self.code = code


class Node(NamedTuple):
    id: str
    ip: str
    cpus: int


def table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def choose_nodes(nodes: list[Node], own_id: str, world_size: int, nnodes: int, cluster: str) -> list[Node]:
    """-> own node first, then by address: `nnodes` of them, or as many as share the ranks evenly."""
    by_ip = collections.Counter(node.ip for node in nodes)
    twice = [ip for ip, count in by_ip.items() if count > 1]
    if twice:
        raise Refusal("invalid_argument", f"{by_ip[twice[0]]} Ray nodes have the address {twice[0]}: every node needs its own; "
                      "start Ray on each with ray start .. --node-ip-address=ADDRESS")
    own = next((node for node in nodes if node.id == own_id), None)
    if own is None:
        raise Refusal("unavailable", f"this machine is no living node of the Ray cluster {cluster}: see ray status")
    others = sorted((node for node in nodes if node.id != own_id), key=lambda node: [part.zfill(3) for part in node.ip.split(".")])
    count = nnodes or max(n for n in range(1, len(nodes) + 1) if world_size % n == 0)
    if world_size % count:
        raise Refusal("invalid_argument", f"--nnodes {count} cannot share {world_size} ranks evenly")
    ranks, chosen = world_size // count, [own, *others][:count]
    if len(chosen) < count or any(node.cpus < ranks for node in chosen):
        join = f"ray start --address='{cluster}'"
        rows = [("node", "CPUs found", "needed", "next command")]
        rows += [(node.ip, str(node.cpus), str(ranks), "-" if node.cpus >= ranks else f"join more nodes: {join}") for node in chosen]
        rows += [("(missing)", "-", str(ranks), f"on that node: {join}")] * (count - len(chosen))
        raise Refusal("resource_exhausted", f"{world_size} ranks need {count} nodes with {ranks} CPUs each, and Ray has "
                      f"{len(nodes)}:\n{table(rows)}\nranks that share a CPU: ray start --num-cpus=N says how many a node takes")
    return chosen


def describe_program(path: str) -> dict[str, str]:
    """-> version and hash of a program, or what is wrong with it."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
        version = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
        return {"version": version.stdout.strip()[:200] or f"exit code {version.returncode}", "sha256": digest.hexdigest()}
    except (OSError, subprocess.SubprocessError) as error:
        return {"problem": str(error)[:200]}


def compare_programs(path: str, nodes: list[Node], found: list[dict[str, str]]) -> None:
    """`found` in the order of `nodes`, the own node first."""
    def shown(program: dict[str, str]) -> str:
        return program.get("problem") or f"{program['version']}, sha256 {program['sha256'][:12]}"

    if all(program == found[0] and "problem" not in program for program in found):
        return
    rows = [("node", "found", "next command")]
    rows += [(node.ip, shown(program), "-" if program == found[0] and "problem" not in program
              else f"scp {nodes[0].ip}:{path} {node.ip}:{path}") for node, program in zip(nodes, found)]
    raise Refusal("invalid_argument", f"{path} is not the same program on all nodes:\n{table(rows)}")


def bounded_lines(pipe: Any) -> Iterator[str]:
    begins = True
    while piece := pipe.readline(MOST_LINE_BYTES):
        if begins:
            yield piece.decode(errors="replace").rstrip("\r\n")
        begins = piece.endswith(b"\n")


def say_end(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"


class Agent:
    """An actor: one process of its node at a time, started again on order, and what becomes of it. Thread-safe."""

    def __init__(self) -> None:
        self._events: collections.deque[tuple[str, str]] = collections.deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._orders: queue.Queue[tuple[list[str], dict[str, str]]] = queue.Queue()
        self._child: subprocess.Popen | None = None
        # Linux ends a child with the thread that made it, so this one lives as long as the actor.
        threading.Thread(target=self._run, daemon=True).start()

    def describe(self, path: str) -> dict[str, str]:
        return describe_program(path)

    def start(self, argv: list[str], env: dict[str, str]) -> None:
        self._orders.put((argv, env))

    def kill(self) -> None:
        child = self._child
        if child is not None and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)

    def events(self, seconds: float) -> list[tuple[str, str]]:
        """Waits for the first one."""
        with self._changed:
            self._changed.wait_for(lambda: self._events, timeout=seconds)
            return [self._events.popleft() for _ in range(min(BATCH_LINES, len(self._events)))]

    def _tell(self, kind: str, what: str) -> None:
        with self._changed:
            if kind == "log" and len(self._events) >= MOST_LINES:
                self._dropped += 1
                return
            if self._dropped:
                self._events.append(("log", f"({self._dropped} lines came too fast and are left out)"))
                self._dropped = 0
            self._events.append((kind, what))
            self._changed.notify()

    def _run(self) -> None:
        libc, parent = ctypes.CDLL(None), os.getpid()

        def die_with_parent() -> None:
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

        while True:
            argv, env = self._orders.get()
            own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # Ray sets it to 1
            try:
                self._child = subprocess.Popen(argv, env={**own, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                               stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent)
            except (OSError, subprocess.SubprocessError) as error:
                self._tell("exited", f"{argv[0]}: {error}")
                continue
            self._tell("started", f"pid {self._child.pid}")
            reader = threading.Thread(target=self._read, args=(self._child.stdout,), daemon=True)
            reader.start()
            code = self._child.wait()
            reader.join(timeout=2)  # its ranks may hold the pipe a little longer
            self._tell("exited", say_end(code))

    def _read(self, pipe: Any) -> None:
        for line in bounded_lines(pipe):
            self._tell("log", line)


class Cluster:
    """The chosen nodes of a Ray cluster and an Agent on each but the own one."""

    def __init__(self, ray: Any, tell: Any):
        self._ray, self._tell = ray, tell
        self._nodes: list[Node] = []
        self._agents: dict[int, Any] = {}
        self._lock = threading.Lock()

    def prepare(self, world_size: int, nnodes: int, program: str) -> None:
        ray = self._ray
        self._program = program
        self._connect()
        context = ray.get_runtime_context()
        living = [Node(node["NodeID"], node["NodeManagerAddress"], int(node.get("Resources", {}).get("CPU", 0)))
                  for node in ray.nodes() if node["Alive"]]
        self._nodes = choose_nodes(living, context.get_node_id(), world_size, nnodes, context.gcs_address)
        if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            self._tell("warning", what="this Ray cluster runs without authentication: whoever reaches its ports runs programs on "
                       "its nodes; set RAY_AUTH_MODE=token on every node before ray start (ray get-auth-token --generate)")
        if len(self._nodes) < len(living):
            self._tell("warning", what=f"{len(self._nodes)} of {len(living)} Ray nodes are used: {world_size} ranks cannot be "
                       "shared evenly by more")
        ranks = world_size // len(self._nodes)
        self._reserve(ranks)
        agents = [self._make_agent(i) for i in range(1, len(self._nodes))]
        found = [describe_program(program)]
        for agent, node in zip(agents, self._nodes[1:]):
            try:
                found.append(ray.get(agent.describe.remote(program), timeout=CHECK_SECONDS))
            except Exception as error:  # of many kinds, all of which say what happened
                raise Refusal("unavailable", f"no agent on node {node.ip}: {str(error)[:1000]}") from error
        compare_programs(program, self._nodes, found)
        for i, agent in enumerate(agents, start=1):
            self._watch(i, agent)
        self._tell("layout", ranks_per_node=[ranks] * len(self._nodes), address=self._nodes[0].ip,
                   nodes=[node.ip for node in self._nodes])

    def start(self, node: int, argv: list[str], env: dict[str, str]) -> None:
        if not 0 < node < len(self._nodes):
            raise Refusal("invalid_argument", f"there is no node {node} to start on")
        env = {name: value for name, value in env.items() if value}  # an empty one leaves it to the node's own
        threading.Thread(target=self._start, args=(node, argv, env), daemon=True).start()

    def kill(self, node: int) -> None:
        agent = self._agents.get(node)
        if agent is not None:
            agent.kill.remote()

    def close(self) -> None:
        agents = list(self._agents.values())
        if agents:
            self._ray.wait([agent.kill.remote() for agent in agents], num_returns=len(agents), timeout=CLOSE_SECONDS)
        for agent in agents:
            self._ray.kill(agent)
        self._ray.shutdown()

    def _connect(self) -> None:
        try:
            self._ray.init(address="auto", namespace="hadal", log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise Refusal("unavailable", "no Ray cluster runs on this machine: ray start --head --node-ip-address=ADDRESS "
                          f"--port=8850, then ray start --address=ADDRESS:8850 on the other nodes ({str(error)[:300]})") from error
        except Exception as error:
            text = str(error)[:1000]
            if "ersion mismatch" in text:
                raise Refusal("invalid_argument", f"the Ray cluster runs other versions than the ray command here "
                              f"({sys.executable}): install the same Ray and Python on all nodes, then ray stop and ray start\n{text}") from error
            raise Refusal("unavailable", f"the Ray cluster cannot be joined: {text}") from error

    def _reserve(self, ranks: int) -> None:
        # Addresses are unique, so that each bundle has one node to go to.
        bundles = [{"CPU": ranks, f"node:{node.ip}": 0.001} for node in self._nodes]
        self._group = self._ray.util.placement_group(bundles, strategy="STRICT_SPREAD")
        if not self._group.wait(PLACE_SECONDS):
            raise Refusal("unavailable", f"Ray did not give {ranks} CPUs on each of {', '.join(node.ip for node in self._nodes)} "
                          f"within {PLACE_SECONDS} s: other jobs hold them (ray status)")

    def _make_agent(self, i: int) -> Any:
        place = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            placement_group=self._group, placement_group_bundle_index=i)
        agent = self._ray.remote(Agent).options(num_cpus=1, max_restarts=0, max_concurrency=4, scheduling_strategy=place).remote()
        with self._lock:
            self._agents[i] = agent
        return agent

    def _watch(self, i: int, agent: Any) -> None:
        def follow() -> None:
            try:
                while True:
                    for kind, what in self._ray.get(agent.events.remote(POLL_SECONDS)):
                        self._tell(kind, node=i, what=f"{what} on {self._nodes[i].ip}" if kind == "started" else what)
            except Exception as error:
                with self._lock:
                    if self._agents.get(i) is agent:
                        del self._agents[i]
                self._tell("lost", node=i, what=f"{self._nodes[i].ip}: {str(error)[:1000]}")

        threading.Thread(target=follow, daemon=True).start()

    def _start(self, i: int, argv: list[str], env: dict[str, str]) -> None:
        agent = self._agents.get(i)
        try:
            if agent is None:  # the last one was lost
                agent = self._make_agent(i)
                found = self._ray.get(agent.describe.remote(self._program), timeout=CHECK_SECONDS)
                compare_programs(self._program, [self._nodes[0], self._nodes[i]], [describe_program(self._program), found])
                self._watch(i, agent)
            self._ray.get(agent.start.remote(argv, env))
        except Exception as error:
            with self._lock:
                if self._agents.get(i) is agent:
                    del self._agents[i]
            self._tell("lost", node=i, what=f"{self._nodes[i].ip}: {str(error)[:1000]}")


def run(ray: Any, orders: Any, tell: Any) -> int:
    cluster = Cluster(ray, tell)
    operations = {"prepare": cluster.prepare, "start": cluster.start, "kill": cluster.kill}
    try:
        for line in orders:
            order = json.loads(line)
            operations[order.pop("op")](**order)
    except Refusal as refusal:
        tell("error", code=refusal.code, what=str(refusal))
        return 1
    finally:
        cluster.close()
    return 0


def main() -> int:
    # Events have a stream of their own: whatever libraries print goes to stderr.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(event: str, **fields: Any) -> None:
        with lock:
            print(json.dumps({"event": event, **fields}), file=out, flush=True)

    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        tell("error", code="unavailable", what=f"{sys.executable} has no Ray: {error}")
        return 1
    return run(ray, sys.stdin, tell)


if __name__ == "__main__":
    # Ray's threads may not end in time.
    code = main()
    sys.stderr.flush()
    os._exit(code)
