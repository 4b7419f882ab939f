"""As much of Ray's interface as hadal's launcher uses, in one process: actors are objects, their calls are threads. The
cluster is described by the JSON file that FAKE_RAY names:
  {"own": "a", "nodes": [{"id": "a", "ip": "127.0.0.1", "cpus": 4, "alive": true}, ..], "init_error": ["ConnectionError", ".."],
   "places": true, "programs": {"127.0.0.2": {"problem": ".."}}}
A file FAKE_RAY.lose that holds a node's address makes its actor die."""
from __future__ import annotations

import concurrent.futures
import json
import os
import sys
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

__version__ = "0.fake"
_cluster: dict = {}


class exceptions:  # noqa: N801, as a module of that name
    class RayActorError(Exception):
        pass


def init(address: str, **_: Any) -> None:
    print("libraries print things")
    _cluster.update(json.load(open(os.environ["FAKE_RAY"], encoding="utf-8")))
    if "init_error" in _cluster:
        kind, text = _cluster["init_error"]
        raise {"ConnectionError": ConnectionError, "RuntimeError": RuntimeError}[kind](text)
    assert address == "auto"


def shutdown() -> None:
    print("shut down", file=sys.stderr)


def nodes() -> list[dict]:
    return [{"NodeID": node["id"], "NodeManagerAddress": node["ip"], "Alive": node.get("alive", True),
             "Resources": {"CPU": float(node["cpus"])} if node["cpus"] else {}} for node in _cluster["nodes"]]


def get_runtime_context() -> SimpleNamespace:
    return SimpleNamespace(get_node_id=lambda: _cluster["own"], gcs_address="127.0.0.1:8850")


def _lost(ip: str) -> bool:
    path = os.environ["FAKE_RAY"] + ".lose"
    if not os.path.exists(path) or open(path, encoding="utf-8").read() != ip:
        return False
    os.remove(path)
    return True


class _Method:
    def __init__(self, actor: "_Actor", name: str):
        self.actor, self.name = actor, name

    def remote(self, *args: Any) -> Future:
        future: Future = Future()

        def call() -> None:
            try:
                future.set_result(self.actor.call(self.name, *args))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return future


class _Actor:
    def __init__(self, instance: Any, ip: str):
        self.instance, self.ip, self.dead = instance, ip, False

    def call(self, name: str, *args: Any) -> Any:
        json.dumps(args)  # only plain values travel
        if name == "describe" and self.ip in _cluster.get("programs", {}):
            return _cluster["programs"][self.ip]
        if name == "events":
            for _ in range(100):
                if not self.dead and _lost(self.ip):
                    kill(self)
                if self.dead:
                    raise exceptions.RayActorError("The actor died because its node has died.")
                if batch := self.instance.events(0.1):
                    return batch
            return []
        if self.dead:
            raise exceptions.RayActorError("The actor is dead.")
        return getattr(self.instance, name)(*args)

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)


def remote(cls: type) -> SimpleNamespace:
    def options(*, num_cpus: int, max_restarts: int, max_concurrency: int, scheduling_strategy: Any) -> SimpleNamespace:
        assert (num_cpus, max_restarts) == (1, 0) and max_concurrency >= 2
        bundle = scheduling_strategy.placement_group.bundles[scheduling_strategy.placement_group_bundle_index]
        ip = next(name for name in bundle if name.startswith("node:")).removeprefix("node:")
        return SimpleNamespace(remote=lambda: _Actor(cls(), ip))

    return SimpleNamespace(options=options)


def get(future: Future, timeout: float | None = None) -> Any:
    return future.result(timeout)


def wait(futures: list[Future], num_returns: int, timeout: float) -> None:
    assert num_returns == len(futures)
    concurrent.futures.wait(futures, timeout)


def kill(actor: _Actor) -> None:
    actor.dead = True
    actor.instance.kill()


def _placement_group(bundles: list[dict], strategy: str) -> SimpleNamespace:
    assert strategy == "STRICT_SPREAD"
    return SimpleNamespace(bundles=bundles, wait=lambda seconds: _cluster.get("places", True))


from . import util  # noqa: E402

util.placement_group = _placement_group
