# SPDX-License-Identifier: Apache-2.0
"""Where the data record is kept, durably."""

from __future__ import annotations

from pathlib import Path

from haoperator.core.record import DataRecord
from haoperator.lean import durable

PATH = Path("/var/lib/haoperator/data-record.json")


class RecordStore:
    """The record of this node. What `put` was given is on disk when it returns.

    A file that is missing is a node before its first start. One that cannot be
    understood is never replaced in silence: `__init__` raises ValueError.
    """

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        durable.interrupted(path).unlink(missing_ok=True)
        try:
            self._on_disk = DataRecord.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._on_disk = DataRecord()
        self._record = self._on_disk

    @property
    def record(self) -> DataRecord:
        return self._record

    def put(self, record: DataRecord) -> None:
        """Replace the record. Raises OSError, and keeps the old one."""
        if record != self._on_disk:
            durable.replace(self._path, record.to_json().encode() + b"\n")
        self._record = self._on_disk = record

    def give_up(self, record: DataRecord) -> None:
        """Replace the record by one that promises less. Raises OSError when it is not on disk;
        this process goes by it all the same, until the next `put`."""
        self._record = record
        self.put(record)
