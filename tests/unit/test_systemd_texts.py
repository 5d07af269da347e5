# SPDX-License-Identifier: Apache-2.0
"""The texts that the generator writes, word by word."""

from __future__ import annotations

from pathlib import Path

import tomlconfig
from haoperator.systemd import texts

CONFIG = """\
[cluster]
name = "shop"
[node.a]
[node.b]
[link.lan]
a = "10.0.0.1"
b = "10.0.0.2"
[vip.front]
address = "10.0.0.100/24"
interface = "eth0"
[replicate.data]
path = "/srv/shop/data"
[replicate.odd]
path = '/srv/a "b\\c-100%'
[app.db]
container = "db"
[app.my-web]
image = "web"
after = ["db"]
max_restarts = 5
restart_window = "90m"
[checker.front-page]
app = "my-web"
tcp = "127.0.0.1:80"
interval = "500ms"
timeout = "200ms"
failures = 4
"""

HEAD = "# Made by haoperator-generator from /etc/haoperator/cluster.toml. Changes here are lost.\n"


def generated(text: str = CONFIG) -> texts.Generated:
    return texts.for_config(tomlconfig.parse(text.encode(), Path("/etc/haoperator/cluster.toml")))


def test_mount_unit_of_a_directory() -> None:
    assert generated().files["srv-shop-data.mount"] == (
        HEAD
        + """\
[Unit]
Description=High availability: replicated directory data
Documentation=man:mount.haoperator(8)
SourcePath=/etc/haoperator/cluster.toml
DefaultDependencies=no
Wants=ha-replicator.service
After=ha-cluster.target local-fs.target ha-replicator.service
Before=docker.service umount.target
Conflicts=umount.target
PartOf=ha-cluster.target

[Mount]
What=data
Where=/srv/shop/data
Type=haoperator
LazyUnmount=yes
TimeoutSec=30s
"""
    )


def test_unusual_path_is_escaped_for_its_place() -> None:
    files = generated().files
    odd = r"srv-a\x20\x22b\x5cc\x2d100\x25.mount"
    assert 'Where=/srv/a "b\\c-100%%\n' in files[odd]
    requires = 'RequiresMountsFor="/srv/shop/data" "/srv/a \\"b\\\\c-100%%"\n'
    assert requires in files["ha-app@db.service.d/50-haoperator.conf"]


def test_gate_is_bound_to_the_mounts() -> None:
    mounts = r"srv-shop-data.mount srv-a\x20\x22b\x5cc\x2d100\x25.mount"
    files = generated().files
    unit = f"{HEAD}[Unit]\nBindsTo={mounts}\nAfter={mounts}\n"
    assert files["ha-promote.service.d/50-haoperator.conf"] == unit
    assert files["haoperator.service.d/50-haoperator.conf"] == f"{HEAD}[Unit]\nAfter={mounts}\n"
    assert files["ha-replicator.service.d/50-haoperator.conf"] == (
        f"{HEAD}[Unit]\nUpholds={mounts}\n"
    )


def test_vip_knows_its_address_without_the_configuration() -> None:
    assert generated().files["ha-vip@front.service.d/50-haoperator.conf"] == (
        f'{HEAD}[Service]\nEnvironment="HAOPERATOR_VIP=10.0.0.100 24 eth0"\n'
    )


def test_application_starts_after_vips_and_those_before_it() -> None:
    drop_in = generated().files["ha-app@my-web.service.d/50-haoperator.conf"]
    assert "After=ha-vip@front.service ha-app@db.service\n" in drop_in
    assert "StartLimitIntervalSec=5400s\nStartLimitBurst=6\n" in drop_in


def test_application_has_its_time_and_dockerd_where_it_needs_one() -> None:
    text = (
        CONFIG
        + """
[app.unit]
unit = "shop.service"
start_timeout = "30s"
stop_timeout = "20s"
[app.exec]
exec = "/bin/shop"
ready = "notify"
after = ["unit"]
"""
    )
    files = generated(text).files
    docker = files["ha-app@db.service.d/50-haoperator.conf"]
    assert "Wants=docker.service\nAfter=docker.service docker.socket containerd" in docker
    assert "TimeoutStartSec=370s\nTimeoutStopSec=30s\n" in docker
    unit = files["ha-app@unit.service.d/50-haoperator.conf"]
    assert "Wants=shop.service\n" in unit
    assert "docker" not in unit
    assert "TimeoutStartSec=110s\nTimeoutStopSec=40s\n" in unit
    command = files["ha-app@exec.service.d/50-haoperator.conf"]
    assert "After=ha-vip@front.service ha-app@unit.service shop.service\n" in command
    assert command.endswith("OOMScoreAdjust=0\nUMask=0022\nNotifyAccess=all\n")
    assert files["shop.service.d/50-haoperator.conf"].startswith(
        f"{HEAD}[Unit]\nRequisite=ha-promote.service\n"
        "After=ha-promote.service ha-vip@front.service\nRequiresMountsFor="
    )


def test_without_containers_there_is_no_guard() -> None:
    text = CONFIG.replace('container = "db"', 'unit = "db.service"').replace(
        'image = "web"', 'exec = "/bin/web"'
    )
    assert "ha-cluster.target.wants/ha-guard.service" not in generated(text).links


def test_checker_has_the_watchdog_of_its_promise() -> None:
    assert generated().files["ha-checker@front-page.service.d/50-haoperator.conf"] == (
        HEAD
        + """\
[Unit]
PartOf=ha-primary.target
BindsTo=ha-promote.service
After=ha-primary.target ha-promote.service ha-vip@front.service ha-app@db.service \
ha-app@my-web.service

[Service]
TimeoutStartSec=22700ms
WatchdogSec=2700ms
RestartSec=500ms
"""
    )


def test_checker_of_both_roles_belongs_to_the_cluster_and_waits_for_the_mounts() -> None:
    made = generated(CONFIG + '[checker.room]\ndisk = "/srv"\non_failure = "notify"\n')
    assert made.files["ha-checker@room.service.d/50-haoperator.conf"].startswith(
        f"{HEAD}[Unit]\nPartOf=ha-cluster.target\nAfter=ha-cluster.target srv-shop-data.mount srv-a"
    )
    assert "ha-cluster.target.wants/ha-checker@room.service" in made.links
    assert "ha-primary.target.wants/ha-checker@room.service" not in made.links


def test_links_pull_in_daemons_mounts_and_what_the_primary_runs() -> None:
    assert generated().links == {
        f"ha-cluster.target.wants/{unit}": f"/lib/systemd/system/{unit}"
        for unit in (
            *("ha-heartbeat.service", "ha-replicator.service", "haoperator.service"),
            "ha-guard.service",
        )
    } | {
        f"ha-cluster.target.wants/{unit}": f"../{unit}"
        for unit in ("srv-shop-data.mount", r"srv-a\x20\x22b\x5cc\x2d100\x25.mount")
    } | {
        f"ha-primary.target.wants/ha-{kind}@{name}.service": (
            f"/lib/systemd/system/ha-{kind}@.service"
        )
        for kind, name in (
            ("vip", "front"),
            ("app", "db"),
            ("app", "my-web"),
            ("checker", "front-page"),
        )
    }


def test_every_drop_in_belongs_to_a_packaged_unit() -> None:
    packaged = {path.name for path in (Path(__file__).parents[2] / "units").iterdir()}
    for link, target in generated().links.items():
        assert link.split(".wants/")[0] in packaged
        assert target.startswith("../") or Path(target).name in packaged


def test_error_unit_carries_every_line_unchanged() -> None:
    unit = texts.error_unit(Path("/etc/x.toml"), 'x.toml:1: "50%" \\n\nx.toml:2: second')
    assert 'StandardInputText=x.toml:1: "50%%" \\\\n\nStandardInputText=x.toml:2: second\n' in unit
    assert "Description=High availability: /etc/x.toml has an error\n" in unit


def test_two_nodes_make_no_difference_and_nothing_means_no_drop_ins() -> None:
    bare = generated(CONFIG[: CONFIG.index("[vip")])
    assert bare.files == {}
    assert len(bare.links) == 3
