# SPDX-License-Identifier: Apache-2.0
"""Applications that are units, commands, or containers on a volume of Docker's own."""

from __future__ import annotations

from . import trees
from .cluster import Pair
from .node import Node
from .reconfigured import active, configured, inspected, running, said, swap, wait_said
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
DETAILED = """
[app.detailed]
image = "web:1"
command = ["sh", "-c", "trap '' TERM; id -u; while :; do sleep 1; done"]
environment = { LANG = "C" }
env_file = ["/srv/detailed.env"]
user = "999:999"
hostname = "detailed"
workdir = "/tmp"
init = true
ulimits = { nofile = "1024:4096" }
capabilities = ["NET_ADMIN"]
drop_capabilities = ["MKNOD"]
devices = ["/dev/null:/dev/nothing:r"]
labels = { team = "shop" }
log_driver = "json-file"
log_options = { max-size = "1m" }
read_only = true
tmpfs = ["/tmp:mode=1777"]
extra_hosts = ["db:10.0.0.7"]
dns = ["10.0.0.53"]
stop_signal = "SIGTERM"
stop_timeout = "2s"
[app.detailed.healthcheck]
command = "test ! -e /tmp/sick"
interval = "1s"
retries = 1
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

        # An isolate of the role that is here already stops nothing.
        kept = main_pid(primary, "shop.service")
        primary.exec("systemctl", "isolate", "ha-primary.target", timeout=60)
        assert main_pid(primary, "shop.service") == kept

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


def test_options_reach_docker_and_a_container_that_falls_sick_is_restarted(pair: Pair) -> None:
    def env_file(node: Node) -> None:
        node.put("/srv/detailed.env", "LANG=de\nWORD=bread\n")

    def nothing_left(node: Node) -> None:
        node.exec("docker", "rm", "--force", "ha-detailed", check=False)

    unit, name = "ha-app@detailed.service", "ha-detailed"
    with configured(pair, DETAILED, env_file, nothing_left):
        primary = pair.primary
        until(lambda: active(primary, unit), "it is healthy", within=30, hint=pair.explain)
        shown = primary.exec("docker", "exec", name, "sh", "-c", "id -u; pwd; echo $LANG $WORD")
        assert shown.stdout.split() == ["999", "/tmp", "C", "bread"]

        # moby#28400: Docker itself does nothing about it.
        first = inspected(primary, name)
        assert first
        primary.exec("docker", "exec", "--user=0", name, "touch", "/tmp/sick")
        wait_said(primary, unit, "the container is unhealthy")
        until(
            lambda: (
                active(primary, unit)
                and (inspected(primary, name) or first)["State"]["Pid"] != first["State"]["Pid"]
            ),
            "it runs again",
            within=30,
            hint=pair.explain,
        )

        # It does not listen to its stop signal, and is killed in time.
        _, old = swap(pair)
        assert not running(old, name)
        stopped = inspected(old, name)
        assert stopped
        assert stopped["State"]["ExitCode"] == 137
