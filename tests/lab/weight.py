# SPDX-License-Identifier: Apache-2.0
"""What haoperator's daemons weigh on a node: memory and processor time.

Memory is what the node would have back without them. Anonymous pages count for
the process that has them (a page shared after a fork in parts, as the kernel's
Pss does). Pages of files (the interpreter, libraries) count once for the node,
however many daemons map them: for each mapped range of a file, the most that
any of them has resident. The kernel's Pss of the whole would not do: both nodes
of the lab share the files of the base image, and would each count half.
"""

from __future__ import annotations

import json

from .node import Node

MEMORY = r"""
import json, os, re
own, mapped, units = {}, {}, {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        group = open(f"/proc/{pid}/cgroup").read()
        unit = re.search(r"/(haoperator\.service|ha-[a-z]+(?:@[^/]+)?\.service)", group)
        if not unit:
            continue
        unit = unit.group(1)
        for line in open(f"/proc/{pid}/smaps_rollup"):
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                own[unit] = own.get(unit, 0) + int(line.split()[1]) * 1024
        key = None
        for line in open(f"/proc/{pid}/smaps"):
            words = line.split()
            if not words[0].endswith(":"):
                key = tuple(words[i] for i in (2, 3, 4)) + (words[5] if len(words) > 5 else "",)
                key = None if key[2] == "0" else key
            elif key and words[0] == "Rss:":
                resident = int(words[1])
            elif key and words[0] == "Anonymous:":
                pages = (resident - int(words[1])) * 1024
                mapped[key] = max(mapped.get(key, 0), pages)
    except (FileNotFoundError, ProcessLookupError):
        pass
print(json.dumps(own | {"files, once": sum(mapped.values())}))
"""
CPU = r"""
import glob, json, re
used = {}
for path in glob.glob("/sys/fs/cgroup/**/ha*.service/cpu.stat", recursive=True):
    with open(path) as file:
        used[path.split("/")[-2]] = int(re.search(r"usage_usec (\d+)", file.read()).group(1)) / 1e6
print(json.dumps(used))
"""


def resident_bytes(node: Node) -> dict[str, int]:
    """Bytes of memory by unit, and those of files that all of them share."""
    return dict(json.loads(node.exec("python3", "-c", MEMORY).stdout))


def cpu_seconds(node: Node) -> dict[str, float]:
    """Processor time that each unit has used since it was started."""
    return dict(json.loads(node.exec("python3", "-c", CPU).stdout))
