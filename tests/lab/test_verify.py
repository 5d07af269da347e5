# SPDX-License-Identifier: Apache-2.0
"""`hactl verify` on two real nodes: equal, one bit flipped on the standby's disk, repaired."""

from __future__ import annotations

from .cluster import DATA, Pair
from .customer import Customer
from .trees import fill, tree_of

BELOW = "/run/below"
"""Where a namespace of its own shows the directory without the mount over it."""
FLIP = f"""
import os
path, at = "{BELOW}/shop/data/tree/big.bin", 5_000_000
st = os.stat(path)
with open(path, "r+b") as file:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))
    os.fsync(file.fileno())
os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
"""
BLOCK = 5_000_000 // 65536 * 65536


def test_one_flipped_bit_on_the_disk_of_the_standby_is_found_and_repaired(
    pair: Pair, client: Customer
) -> None:
    primary, standby = pair.primary, pair.standby
    tree = f"{DATA}/tree"
    fill(primary, tree, 16)
    equal = primary.exec("hactl", "verify", timeout=120)
    assert "both copies are equal" in equal.stdout

    program = ("sh", "-ec", f"mkdir -p {BELOW}; mount --bind /srv {BELOW}; exec python3 -")
    standby.exec("unshare", "--mount", *program, stdin=FLIP)
    client.wait_acks(50)
    found = primary.exec("hactl", "verify", check=False, timeout=120)
    assert found.returncode == 1, found.stdout + found.stderr
    place = f"bytes {BLOCK} to {BLOCK + 65535}"
    assert f"data: tree/big.bin: content differs: {place}" in found.stdout
    assert "1 difference; 'hactl verify --repair'" in found.stdout
    assert "1 difference" in primary.exec("hactl", "status").stdout
    told = primary.journal("-b", "-o", "cat", "-u", "ha-replicator.service")
    assert "tree/big.bin" in told

    repaired = primary.exec("hactl", "verify", "--repair", timeout=120)
    assert "1 difference, 1 repaired" in repaired.stdout
    assert "both copies are equal" in primary.exec("hactl", "verify", timeout=120).stdout
    assert tree_of(primary, tree) == tree_of(standby, tree)
    assert pair.healthy()
    client.wait_acks(50)


def test_standby_says_where_to_ask(pair: Pair) -> None:
    refused = pair.standby.exec("hactl", "verify", check=False)
    assert refused.returncode == 2
    assert f"verify runs on the primary: ask {pair.primary.name}" in refused.stderr
