# SPDX-License-Identifier: Apache-2.0
"""What a right file means."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_interface
from pathlib import Path

import pytest

import tomlconfig
from tomlconfig import (
    AppKind,
    CheckerKind,
    ConfigError,
    Keep,
    OnFailure,
    Ready,
    ReadyKind,
    RunsOn,
    docker_volumes,
    schema,
)
from tomlconfig.model import App, Checker, Healthcheck, Timing
from tomlconfig.reference import render_reference

EXAMPLES = sorted(Path(tomlconfig.__file__).parent.glob("*/*.toml"))

BASE = """\
[cluster]
name = "shop"
[node.a]
[node.b]
[link.lan]
a = "10.0.0.1"
b = "10.0.0.2"
"""


def parse(text: str) -> tomlconfig.Config:
    return tomlconfig.parse(text.encode(), Path("cluster.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    assert tomlconfig.load(path).source == path


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


def test_minimal_file_gets_the_defaults() -> None:
    config = parse(BASE)
    assert config.timing == Timing(heartbeat=0.2, detect=2.0)
    assert config.cluster.failover == "automatic"
    assert config.nodes == ("a", "b")
    assert config.peer_of("a") == "b"
    assert (config.vips, config.replicate, config.apps, config.witness) == ((), (), (), None)


def test_witnesses_of_every_kind_stand_side_by_side() -> None:
    said = (
        '[witness]\nping = ["fd00::9"]\ntcp = ["10.0.0.9:22", "[fd00::9]:22"]\n'
        'http = ["http://10.0.0.9/health"]\n'
    )
    assert parse(BASE + said).witness == tomlconfig.Witness(
        ping=("fd00::9",),
        tcp=("10.0.0.9:22", "[fd00::9]:22"),
        http=("http://10.0.0.9/health",),
    )


def test_fastest_timing_is_five_heartbeats() -> None:
    said = '[timing]\nheartbeat = "40ms"\ndetect = "200ms"\n'
    assert parse(BASE + said).timing == Timing(heartbeat=0.04, detect=0.2)


def test_arbiter_is_asked_in_the_order_of_the_file() -> None:
    assert parse(BASE).arbiter is None
    urls = ("http://10.0.0.9:2379", "http://[fd00::9]:2379")
    said = f'{BASE}[arbiter]\netcd = ["{urls[0]}", "{urls[1]}"]\n'
    assert parse(said).arbiter == tomlconfig.Arbiter(etcd=urls)


def test_what_a_resync_may_do_is_said_for_the_cluster() -> None:
    assert parse(BASE).cluster.resync_rate == 0
    assert not parse(BASE).cluster.snapshot_before_resync
    said = BASE.replace(
        '"shop"\n', '"shop"\nresync_rate = "1.5MiB"\nsnapshot_before_resync = true\n'
    )
    assert parse(said).cluster.resync_rate == 1536 * 1024
    assert parse(said).cluster.snapshot_before_resync


def test_redis_template_means_what_it_says() -> None:
    config = tomlconfig.load(next(path for path in EXAMPLES if path.stem == "redis"))
    assert config.links[1].addresses == {"node-a": "10.0.0.1", "node-b": "10.0.0.2"}
    assert config.vips[0].address == ip_interface("10.0.0.100/24")
    assert config.replicate[0].path == Path("/srv/shop/redis")
    app = config.apps[0]
    assert (app.kind, app.target) == (AppKind.IMAGE, "redis:7")
    assert app.volumes == ("/srv/shop/redis:/data",)
    assert app.restart_window == 86_400
    checker = config.checkers[0]
    assert (checker.kind, checker.target) == (CheckerKind.REDIS, "127.0.0.1:6379")
    assert checker.on_failure is OnFailure.RESTART
    assert config.witness is not None
    assert config.witness.ping == ("10.0.0.254",)


def test_whose_data_wins_after_a_split_brain_is_the_choice_of_a_person_unless_said() -> None:
    assert parse(BASE).splitbrain.keep is Keep.MANUAL
    text = f'{BASE}[splitbrain]\nkeep = "former-primary"\n'
    assert parse(text).splitbrain.keep is Keep.FORMER_PRIMARY
    with pytest.raises(ConfigError, match="former-primary"):
        parse(f'{BASE}[splitbrain]\nkeep = "newest"\n')


def test_digest_follows_the_text() -> None:
    assert parse(BASE).digest == parse(BASE).digest
    assert parse(BASE).digest != parse(BASE + "# more\n").digest


def test_macros_reach_every_string_and_may_use_earlier_ones() -> None:
    config = parse(
        '[macros]\nROOT = "/srv"\nDATA = "${ROOT}/shop"\n'
        + BASE
        + '[replicate.d]\npath = "${DATA}/data/./x"\n[app.w]\nimage = "w"\n'
        + 'volumes = ["${DATA}:/d"]\nenvironment = { WHERE = "${DATA}", RAW = "$${DATA} $5" }\n'
    )
    assert config.replicate[0].path == Path("/srv/shop/data/x")
    assert config.apps[0].volumes == ("/srv/shop:/d",)
    assert config.apps[0].environment == {"WHERE": "/srv/shop", "RAW": "${DATA} $5"}


def test_volume_is_where_docker_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "daemon.json"
    monkeypatch.setattr(docker_volumes, "DAEMON_JSON", settings)
    text = BASE + '[replicate.d]\ndocker_volume = "pgdata"\n'
    for said, root in (
        (None, "/var/lib/docker"),
        ('{"data-root": "/srv//docker/"}', "/srv/docker"),
        ('{"data-root": 3}', "/var/lib/docker"),
        ("[", "/var/lib/docker"),
    ):
        if said is not None:
            settings.write_text(said)
        (directory,) = parse(text).replicate
        assert directory.path == Path(f"{root}/volumes/pgdata/_data")
        assert directory.docker_volume == "pgdata"


def test_kinds_of_applications_and_what_they_are_ready_by() -> None:
    text = """
[app.a]
compose = "/srv/shop/./compose.yaml"
profiles = ["web"]
env_files = ["/srv/shop/.env"]
[app.b]
unit = "shop@one.service"
ready = "tcp:[::1]:80"
[app.c]
exec = "/bin/shop --all"
exec_stop = "/bin/shop stop"
exec_status = "/bin/shop status"
environment = { LANG = "C" }
[app.d]
image = "d"
ready = "log:^ready: (yes|true)$"
start_timeout = "1m"
stop_timeout = "1.5s"
"""
    a, b, c, d = parse(BASE + text).apps
    assert (a.kind, a.target) == (AppKind.COMPOSE, "/srv/shop/compose.yaml")
    assert (a.profiles, a.env_files, a.ready) == (("web",), ("/srv/shop/.env",), None)
    assert (b.kind, b.target, b.ready) == (
        AppKind.UNIT,
        "shop@one.service",
        Ready(ReadyKind.TCP, "[::1]:80"),
    )
    assert (c.kind, c.exec_stop, c.exec_status) == (
        AppKind.EXEC,
        "/bin/shop stop",
        "/bin/shop status",
    )
    assert c.environment == {"LANG": "C"}
    assert str(d.ready) == "log:^ready: (yes|true)$"
    assert (d.start_timeout, d.stop_timeout) == (60.0, 1.5)


def test_options_of_a_container_mean_what_docker_means() -> None:
    text = """
[app.w]
image = "w"
memory = "512MiB"
cpus = 2
ulimits = { nofile = "1024:4096", core = 0 }
capabilities = ["CAP_NET_ADMIN", "SYS_TIME"]
stop_signal = "int"
healthcheck = { command = ["ping", "x"], interval = "2s", retries = 3 }
[app.v]
image = "v"
healthcheck = { disable = true }
"""
    first, second = parse(BASE + text).apps
    chosen = first.options
    assert (chosen.memory, chosen.cpus) == (512 << 20, 2.0)
    assert chosen.ulimits == {"nofile": (1024, 4096), "core": (0, 0)}
    assert chosen.capabilities == ("NET_ADMIN", "SYS_TIME")
    assert chosen.stop_signal == "SIGINT"
    assert chosen.healthcheck == Healthcheck(("CMD", "ping", "x"), interval=2.0, retries=3)
    assert second.options.healthcheck == Healthcheck(("NONE",))
    assert second.options.labels == {}


def test_timeout_without_a_key_is_never_longer_than_the_interval() -> None:
    text = BASE + '[checker.c]\ntcp = "localhost:1"\non_failure = "notify"\ninterval = "500ms"\n'
    assert parse(text).checkers[0].timeout == 0.5


def test_checkers_run_where_what_they_ask_matters() -> None:
    text = """
[vip.front]
address = "10.0.0.9/24"
interface = "eth0"
[checker.a]
disk = "/srv"
free = "10%"
on_failure = "failover"
[checker.b]
docker = true
on = "primary"
on_failure = "notify"
[checker.c]
vip = "front"
on_failure = "failover"
[checker.d]
disk = "/srv"
free = "2GiB"
on_failure = "notify"
[checker.e]
http = "https://shop.example/"
status = 204
body = "ok"
check_certificate = true
certificate_left = "14d"
successes = 2
on_failure = "notify"
"""
    a, b, c, d, e = parse(BASE + text).checkers
    assert (a.kind, a.target, a.on, a.free) == (CheckerKind.DISK, "/srv", RunsOn.BOTH, "10%")
    assert (b.kind, b.target, b.on) == (CheckerKind.DOCKER, "", RunsOn.PRIMARY)
    assert (c.kind, c.target, c.on) == (CheckerKind.VIP, "front", RunsOn.PRIMARY)
    assert d.free == str(2 << 30)
    assert (e.status, e.body, e.check_certificate) == (204, "ok", True)
    assert (e.certificate_left, e.successes) == (14 * 86_400, 2)


@pytest.mark.parametrize(
    ("model", "table"), [(Timing, "timing"), (App, "app"), (Checker, "checker")]
)
def test_defaults_of_model_and_schema_agree(model: type, table: str) -> None:
    for field in fields(model):
        key = schema.TABLES[table].key(field.name)
        if key is not None and isinstance(field.default, int | float | str):
            assert key.type.read("1s" if key.default is None else key.default) == field.default, (
                field.name
            )


def test_reference_names_every_key() -> None:
    text = render_reference()
    for table in schema.TABLES.values():
        for key in table.keys:
            assert f"`{key.name}`" in text
