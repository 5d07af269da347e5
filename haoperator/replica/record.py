# SPDX-License-Identifier: Apache-2.0
"""Where the data record is kept, durably."""

from __future__ import annotations

import os
from pathlib import Path

from haoperator.core.record import DataRecord

PATH = Path("/var/lib/haoperator/data-record.json")


class RecordStore:
    """The record of this node. What `put` was given is on disk when it returns.

    A file that is missing is a node before its first start. One that cannot be
    understood is never replaced in silence: `__init__` raises ValueError.
    """

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        path.with_name(path.name + ".new").unlink(missing_ok=True)  # of an interrupted `put`
        try:
            self._record = DataRecord.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._record = DataRecord()

    @property
    def record(self) -> DataRecord:
        return self._record

    def put(self, record: DataRecord) -> None:
        """Replace the record: temporary file, fsync, rename, fsync of the directory."""
        if record == self._record:
            return
        temporary = self._path.with_name(self._path.name + ".new")
        text = record.to_json().encode() + b"\n"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._record = record
