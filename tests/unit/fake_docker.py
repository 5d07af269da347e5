# SPDX-License-Identifier: Apache-2.0
"""As much of dockerd as an application needs: its HTTP on a socket, processes for containers.

Each "container" is a real process, so that its death is a real death.
"""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Container:
    """Its process, and what `docker inspect` says."""

    def __init__(self, name: str, config: dict[str, Any], image: str) -> None:
        self.id = name.encode().hex().ljust(64, "0")
        self.name = name
        self.config = config
        self.image = image
        self.process: subprocess.Popen[bytes] | None = None
        self.status = "created"
        self.health: str | None = None
        self.out_of_memory = False
        self.words = b"\x01\0\0\0\0\0\0\x0blast words"
        self.policy = config.get("HostConfig", {}).get("RestartPolicy", {}).get("Name", "no")

    def start(self) -> None:
        # It ignores SIGTERM no more and no less than the command says.
        command = self.config.get("Cmd") or ["sleep", "1000"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.status = "running"

    def look(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            self.status = "exited"

    def stop(self, grace: float) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.status = "exited"

    @property
    def exit_code(self) -> int:
        code = self.process.poll() if self.process else 0
        return 0 if code is None else code if code >= 0 else 128 - code

    def inspect(self) -> dict[str, Any]:
        self.look()
        running = self.status == "running"
        pid = self.process.pid if self.process and running else 0
        state: dict[str, Any] = {"Status": self.status, "Running": running, "Pid": pid}
        state |= {"ExitCode": self.exit_code, "OOMKilled": self.out_of_memory, "Error": ""}
        state["StartedAt"] = "2023-06-10T00:00:00.25Z"
        if self.health:
            state["Health"] = {"Status": self.health, "Log": [{"Output": "no bread left"}]}
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Image": self.image,
            "State": state,
            "Config": {"Labels": self.labels},
            "HostConfig": {"RestartPolicy": {"Name": self.policy}},
            "Mounts": self.mounts,
        }

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.config.get("Labels") or {})

    @property
    def mounts(self) -> list[dict[str, Any]]:
        """Of paths of the node, as `docker inspect` shows them."""
        binds = (bind.split(":") for bind in self.config.get("HostConfig", {}).get("Binds") or [])
        return [
            {"Type": "bind", "Source": source, "Destination": target, "RW": "ro" not in mode}
            for source, target, *mode in binds
        ]

    def listed(self) -> dict[str, Any]:
        """As in the list of all containers."""
        self.look()
        names = [f"/{self.name}"]
        return {"Id": self.id, "Names": names, "Labels": self.labels, "State": self.status}


class Engine:
    """The state of the fake, for a test to look at and to change."""

    def __init__(self) -> None:
        self.images = {"web:1": "sha256:" + "1" * 64}
        self.containers: dict[str, Container] = {}
        self.requests: list[str] = []
        self.stuck = False
        self.broken = False
        self.health: str | None = None
        self.events: list[tuple[float, str, Container]] = []
        self.changed = threading.Condition()
        self.away = False
        """Streams of events end, as they do when dockerd stops."""

    def find(self, key: str) -> Container | None:
        named = (c for c in self.containers.values() if key in (c.name, c.id))
        return next(named, None)

    def say(self, action: str, container: Container) -> None:
        """An event, for whoever listens and for those who ask from now on."""
        with self.changed:
            self.events.append((time.time(), action, container))
            self.changed.notify_all()

    def hang_up(self) -> None:
        with self.changed:
            self.away = True
            self.changed.notify_all()

    def end(self) -> None:
        for container in self.containers.values():
            container.stop(0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._act()

    def do_POST(self) -> None:
        self._act()

    def do_DELETE(self) -> None:
        self._act()

    def _answer(self, status: int, body: object = None) -> None:
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _act(self) -> None:
        engine = self.server.engine
        while engine.stuck:
            time.sleep(0.05)
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"null") if size else None
        parts = [p for p in url.path.split("/") if p and not p.startswith("v1.")]
        engine.requests.append(f"{self.command} /{'/'.join(parts)}")
        match self.command, parts:
            case _ if engine.broken:
                self._answer(500, {"message": "it is not my day"})
            case "GET", ["_ping"]:
                self._answer(200, b"OK")
            case "GET", ["version"]:
                self._answer(200, {"ApiVersion": "1.41", "Version": "20.10"})
            case "GET", ["images", name, "json"]:
                found = engine.images.get(name)
                missing = {"message": f"No such image: {name}"}
                self._answer(200 if found else 404, {"Id": found} if found else missing)
            case "GET", ["events"]:
                self._stream(engine, float(query["since"][0]), json.loads(query["filters"][0]))
            case "GET", ["containers", "json"]:
                self._answer(200, [each.listed() for each in engine.containers.values()])
            case "POST", ["containers", "create"]:
                name = query["name"][0]
                made = Container(name, body or {}, engine.images[(body or {})["Image"]])
                made.health = engine.health
                engine.containers[name] = made
                self._answer(201, {"Id": made.id})
            case method, ["containers", key, *verb]:
                container = engine.find(key)
                if container is None:
                    self._answer(404, {"message": f"No such container: {key}"})
                else:
                    self._container(engine, container, method, verb, query, body)
            case _:
                self._answer(404, {"message": "page not found"})

    def _stream(self, engine: Engine, since: float, filters: dict[str, list[str]]) -> None:
        """Of events, until dockerd goes or whoever asked."""
        self.close_connection = True
        if engine.away:
            return
        self.send_response(200)
        self.end_headers()
        seen = 0
        while not engine.away:
            with engine.changed:
                engine.changed.wait(0.2)
                new, seen = engine.events[seen:], len(engine.events)
            for at, action, container in new:
                wanted = any(action.startswith(event) for event in filters["event"])
                wanted &= container.id in filters.get("container", [container.id])
                if at >= since and wanted:
                    event = {"Type": "container", "Action": action, "id": container.id}
                    self.wfile.write(json.dumps(event).encode() + b"\n")

    def _container(
        self,
        engine: Engine,
        container: Container,
        method: str,
        verb: list[str],
        query: dict[str, list[str]],
        body: Any,
    ) -> None:
        match method, verb:
            case "GET", ["json"]:
                self._answer(200, container.inspect())
            case "GET", ["logs"]:
                self._answer(200, container.words)
            case "POST", ["start"]:
                container.start()
                engine.say("start", container)
                self._answer(204)
            case "POST", ["stop"]:
                container.stop(float(query.get("t", ["10"])[0]))
                self._answer(204)
            case "POST", ["update"]:
                container.policy = body["RestartPolicy"]["Name"]
                self._answer(200, {})
            case "POST", ["wait"]:
                if container.process is not None:
                    container.process.wait()
                self._answer(200, {"StatusCode": container.exit_code})
            case "DELETE", []:
                container.stop(0)
                del engine.containers[container.name]
                self._answer(204)
            case _:
                self._answer(404, {"message": "page not found"})


class Server(socketserver.ThreadingUnixStreamServer):
    """Serves an `Engine` on a socket."""

    daemon_threads = True

    def __init__(self, path: Path, engine: Engine) -> None:
        super().__init__(str(path), Handler)
        self.engine = engine
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # who asked has gone: no matter
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def container(self, name: str) -> Container:
        """Made by somebody else; it does not run yet."""
        made = Container(name, {}, self.engine.images["web:1"])
        self.engine.containers[name] = made
        return made

    def end(self) -> None:
        self.engine.stuck = False
        self.engine.hang_up()
        self.shutdown()
        self.thread.join()
        self.server_close()
        self.engine.end()
