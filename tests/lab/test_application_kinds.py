# SPDX-License-Identifier: Apache-2.0
"""Applications that are units, commands, or containers on a volume of Docker's own."""

from __future__ import annotations

from . import trees
from .cluster import Pair
from .node import Node
from .reconfigured import active, configured, running, said, swap, wait_said
from .waiting import until

VOLUME = "/var/lib/docker/volumes/shopdata/_data"
SHOP = """[Unit]
Description=a unit of the shop
[Service]
ExecStart=/bin/sleep 1000000
[Install]
WantedBy=multi-user.target
"""
MORE = """
[replicate.shop]
docker_volume = "shopdata"
[app.store]
image = "web:1"
volumes = ["shopdata:/data", "scratch:/scratch"]
command = ["sh", "-c", "echo ready to sell; exec sleep 1000000"]
ready = "log:ready to"
[app.unit]
unit = "shop.service"
after = ["store"]
[app.command]
exec = "/bin/sleep 1000001"
after = ["unit"]
"""
UNITS = ("ha-app@store.service", "ha-app@unit.service", "ha-app@command.service")


def prepare(node: Node) -> None:
    node.put("/etc/systemd/system/shop.service", SHOP)
    node.exec("systemctl", "daemon-reload")
    node.exec("systemctl", "enable", "shop.service")
    node.exec("docker", "volume", "create", "shopdata")


def tidy(node: Node) -> None:
    node.exec("systemctl", "disable", "shop.service")
    node.exec("rm", "/etc/systemd/system/shop.service")
    node.exec("docker", "rm", "--force", "ha-store", check=False)
    node.exec("docker", "volume", "rm", "shopdata", "scratch", check=False)


def main_pid(node: Node, unit: str) -> int:
    return int(node.exec("systemctl", "show", "-P", "MainPID", unit).stdout)


def serves(pair: Pair, node: Node) -> None:
    until(lambda: active(node, *UNITS), "all applications run", within=30, hint=pair.explain)


def test_units_commands_and_volumes_go_with_the_role(pair: Pair) -> None:
    with configured(pair, MORE, prepare, tidy):
        primary, standby = pair.primary, pair.standby
        serves(pair, primary)
        assert active(primary, "shop.service")
        assert not running(standby, "ha-store")

        store = said(primary, "ha-app@store.service")
        assert "ha-store may write to volume scratch at /scratch, which is not replicated" in store
        assert "shopdata" not in store
        for node in pair.nodes:
            hint = "shop.service is enabled, and only the cluster may start it"
            wait_said(node, "ha-guard.service", hint)

        # On the standby nobody starts it, whatever is enabled.
        refused = standby.exec("systemctl", "start", "shop.service", check=False)
        assert refused.returncode != 0
        assert not active(standby, "shop.service")

        # A death is noticed, and mended in place.
        for unit in ("shop.service", "ha-app@command.service"):
            died = main_pid(primary, unit)
            if unit == "shop.service":
                primary.exec("kill", "-KILL", str(died))
            else:
                primary.exec("pkill", "-KILL", "-P", str(died))
            until(
                lambda unit=unit, died=died: main_pid(primary, unit) not in (0, died),  # type: ignore[misc]
                f"{unit} runs again",
                within=20,
                hint=pair.explain,
            )
        serves(pair, primary)
        wait_said(primary, "ha-app@unit.service", "shop.service failed (signal)")

        # What is written into the volume is on both nodes, and goes with the role.
        primary.exec("docker", "exec", "ha-store", "sh", "-c", "echo 17 >/data/stock; sync")
        assert standby.exec("cat", f"{VOLUME}/stock").stdout == "17\n"
        new, old = swap(pair)
        serves(pair, new)
        assert not active(old, "shop.service")
        assert not running(old, "ha-store")
        assert new.exec("docker", "exec", "ha-store", "cat", "/data/stock").stdout == "17\n"
        one, two = (trees.tree_of(node, VOLUME) for node in pair.nodes)
        assert one.differences(two) == []

        # The power of the primary: the mount of the volume is there before dockerd, at boot.
        new.power_cut()
        pair.wait({old.name: "ALONE"}, within=60)
        serves(pair, old)
        assert old.exec("docker", "exec", "ha-store", "cat", "/data/stock").stdout == "17\n"
        new.boot()
        pair.wait({old.name: "PRIM", new.name: "SECOND"}, within=90)
        assert not active(new, "shop.service")
        options = new.exec("findmnt", "-n", "-o", "FSTYPE", VOLUME).stdout
        assert "fuse" in options
