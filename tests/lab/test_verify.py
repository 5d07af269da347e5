# SPDX-License-Identifier: Apache-2.0
"""`hactl verify` on two real nodes: equal, one bit flipped on the standby's disk, repaired."""

from __future__ import annotations

from .cluster import DATA, Pair
from .customer import Customer
from .trees import fill, tree_of
from .waiting import until

BELOW = "/run/below"
"""Where a namespace of its own shows the directory without the mount over it."""
OPEN = f"mkdir -p {BELOW}; mount --bind /srv {BELOW}; exec"
PYTHON = ("sh", "-ec", f"{OPEN} python3 -")
SHELL = ("sh", "-ec", f"{OPEN} sh -e")
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

    standby.exec("unshare", "--mount", *PYTHON, stdin=FLIP)
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


def test_name_that_the_standby_lost_comes_back_by_a_resync(pair: Pair, client: Customer) -> None:
    primary, standby = pair.primary, pair.standby
    tree = f"{DATA}/names"
    fill(primary, tree, 1)
    remove = f"rm -r {BELOW}/shop/data/names/documents"
    standby.exec("unshare", "--mount", *SHELL, stdin=remove)
    found = primary.exec("hactl", "verify", check=False, timeout=120)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "data: names/documents: missing" in found.stdout
    client.wait_acks(50)
    repaired = primary.exec("hactl", "verify", "--repair", timeout=120)
    assert "a resync brings over the rest" in repaired.stdout
    until(lambda: equal(pair), "equal again", within=60, hint=pair.explain)
    assert tree_of(primary, tree) == tree_of(standby, tree)
    client.wait_acks(50)


def equal(pair: Pair) -> bool:
    """False as well while the resync is under way."""
    return pair.primary.exec("hactl", "verify", check=False, timeout=120).returncode == 0


def test_standby_says_where_to_ask(pair: Pair) -> None:
    refused = pair.standby.exec("hactl", "verify", check=False)
    assert refused.returncode == 2
    assert f"verify runs on the primary: ask {pair.primary.name}" in refused.stderr
