# SPDX-License-Identifier: Apache-2.0
"""Prints, as JSON, all that matters of a directory tree. Sent to a node's python3 as it is.

Path → type, mode, owner, links, size, mtime, extended attributes, the target of a
symlink, and a hash of every 4 KiB of content.
"""

import hashlib
import json
import os
import stat
import sys

BLOCK = 4096


def blocks(path: str) -> list[str]:
    hashes = []
    with open(path, "rb") as file:
        while piece := file.read(256 * BLOCK):
            for at in range(0, len(piece), BLOCK):
                digest = hashlib.blake2b(piece[at : at + BLOCK], digest_size=8)
                hashes.append(digest.hexdigest())
    return hashes


def describe(path: str) -> dict[str, object]:
    s = os.lstat(path)
    entry: dict[str, object] = {
        "type": stat.filemode(s.st_mode)[0],
        "mode": oct(stat.S_IMODE(s.st_mode)),
        "owner": [s.st_uid, s.st_gid],
        "mtime_ns": s.st_mtime_ns,
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False).hex()
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        },
    }
    if stat.S_ISREG(s.st_mode):
        entry |= {"size": s.st_size, "links": s.st_nlink, "blocks": blocks(path)}
    if stat.S_ISLNK(s.st_mode):
        entry["target"] = os.readlink(path)
    return entry


def main(root: str) -> None:
    tree = {".": describe(root)}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            tree[os.path.relpath(path, root)] = describe(path)
    json.dump(tree, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
