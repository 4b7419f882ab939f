"""Acceptance checks 1 to 3, 29 and 30: routes, keys, HTTP errors."""
from __future__ import annotations

import http.client
import json
import socket

from acceptance_table import COMPLETIONS, check, equal, error_of


@check(1, "GET /health, GET and POST /ping: 200, empty")
def check_health(server):
    for method, path in (("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")):
        status, _, text = server.call(method, path)
        equal((status, text), (200, ""), f"{method} {path}")


@check(2, "GET /version: an object with the version")
def check_version(server):
    status, _, text = server.call("GET", "/version")
    equal(status, 200)
    version = json.loads(text)["version"]
    assert isinstance(version, str) and version, text


@check(3, "GET /v1/models: the served name with root and max_model_len")
def check_models(server):
    models = json.loads(server.call("GET", "/v1/models")[2])
    equal(models["object"], "list")
    card = models["data"][0]
    equal(card["id"], "models/nano")
    assert card["root"] and isinstance(card["max_model_len"], int), card


@check(29, "with a key: none 401, wrong 401, right 200, OPTIONS 200", own_server=("--api-key", "right"))
def check_keys(server):
    error_of(server, "/v1/models", None, 401, method="GET")
    error_of(server, "/v1/models", None, 401, method="GET", headers={"Authorization": "Bearer wrong"})
    equal(server.call("GET", "/v1/models", None, {"Authorization": "Bearer right"})[0], 200)
    equal(server.call("OPTIONS", "/v1/models", None, {"Origin": "http://x"})[0], 200)
    equal(server.call("GET", "/health")[0], 200)


@check(30, "wrong method 405, unknown path 404, a body of 100 MiB 413: nested JSON")
def check_http_errors(server):
    error_of(server, COMPLETIONS, None, 405, method="GET")
    error_of(server, "/nothing", None, 404, "/nothing", method="GET")
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 104857600\r\n\r\n" + b" " * 65536)
        response = http.client.HTTPResponse(connection)
        response.begin()
        equal(response.status, 413)
        equal(json.loads(response.read())["error"]["code"], 413)
