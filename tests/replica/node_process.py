# SPDX-License-Identifier: Apache-2.0
"""One replicator without systemd and bus, driven by JSON lines on a socket."""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from haoperator.replica import branch, connector, fdstore
from haoperator.replica.engine import Engine
from haoperator.replica.limits import raise_limits
from haoperator.replica.reception import Reception
from haoperator.replica.settings import LinkPath, ReplicatedDirectory, Settings
from haoperator.replica.standing import Refused
from tomlconfig.model import Durability


def settings_from(said: dict[str, Any]) -> Settings:
    return Settings(
        cluster=said["cluster"],
        node=said["node"],
        peer=said["peer"],
        key=bytes.fromhex(said["key"]),
        links=tuple(LinkPath(*link) for link in said["links"]),
        directories=tuple(
            ReplicatedDirectory(name, path, Durability(said["durability"]))
            for name, path in said["directories"]
        ),
        record_path=Path(said["record_path"]),
        run_directory=Path(said["run_directory"]),
        detect_seconds=said["detect_seconds"],
        port=said["port"],
        checkpoint_seconds=said["checkpoint_seconds"],
        resync_rate=said.get("resync_rate", 0),
        snapshot_before_resync=said.get("snapshot_before_resync", False),
    )


def state(engine: Engine) -> dict[str, Any]:
    return {
        "role": engine.role.value,
        "stream": engine.stream.value,
        "record": json.loads(engine.record.to_json()),
        "directories": json.loads(engine.directories_json()),
        "refusal": engine.refusal,
        "heard": engine.heard,
        "hot": dict(engine.hot.state()),
    }


def call(engine: Engine, said: dict[str, Any]) -> Any:
    match said["call"]:
        case "state":
            return state(engine)
        case "become_primary":
            return engine.become_primary(
                said["generation"],
                time.monotonic() + said.get("within", 10.0),
                force=said.get("force", False),
            )
        case "continue_alone":
            deadline = time.monotonic() + said.get("within", 10.0)
            return engine.continue_alone(said["generation"], deadline)
        case "become_secondary":
            return engine.become_secondary()
        case "mark_outdated":
            return engine.mark_outdated()
        case "yield_branch":
            return engine.yield_branch(said["to"])
        case "yielded":
            return json.loads(engine.yielded_json)
        case "checkpoint":
            return engine.checkpoint()
        case "verify":
            return engine.verify(repair=said.get("repair", False))
        case "verification":
            return json.loads(engine.verification_json)
    raise ValueError(said["call"])


def serve(engine: Engine, sock: socket.socket) -> None:
    with sock, sock.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            try:
                answer = {"result": call(engine, json.loads(line))}
            except Refused as err:
                answer = {"error": str(err)}
            except Exception as err:
                logging.exception("call failed")
                answer = {"error": f"{type(err).__name__}: {err}"}
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


def main() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(threadName)s %(message)s", stream=sys.stderr
    )
    said = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "open_files" in said:
        resource.setrlimit(resource.RLIMIT_NOFILE, (said["open_files"], said["open_files"]))
    raise_limits()
    branch.LARGE = said.get("large", branch.LARGE)
    connector.OUTDATED_SECONDS = said.get("outdated_seconds", connector.OUTDATED_SECONDS)
    settings = settings_from(said)
    engine = Engine(settings)
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())  # the parent cannot know it
    paths = {directory.name: directory.path for directory in settings.directories}
    taken_up = fdstore.taken_up()
    engine.requests.take_up(dict(taken_up.tables), fdstore)
    for kept in taken_up.directories:
        engine.add_directory(kept.name, paths[kept.name], kept.fuse_fd, kept.root_fd, restored=True)
    engine.requests.settle()
    Reception(settings.run_directory / "replicator.sock", engine.add_directory).start()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control = settings.run_directory / "control.sock"
    control.unlink(missing_ok=True)
    listening.bind(str(control))
    listening.listen(8)
    engine.start()
    while True:
        sock, _ = listening.accept()
        threading.Thread(target=serve, args=(engine, sock), daemon=True).start()


if __name__ == "__main__":
    main()
