# SPDX-License-Identifier: Apache-2.0
"""A wrong file: each error names file, line, key, what was expected, and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tomlconfig
from tomlconfig import ConfigError, schema
from tomlconfig.errors import Problem

BASE = """\
[cluster]
name = "shop"
[node.a]
[node.b]
[link.lan]
a = "10.0.0.1"
b = "10.0.0.2"
"""
BASE_LINES = BASE.count("\n")

VIP = '[vip.front]\naddress = "10.0.0.100/24"\ninterface = "eth0"\n'
APP = '[app.web]\nimage = "shop"\n'


def problems(text: str | bytes) -> list[Problem]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as raised:
        tomlconfig.parse(data, Path("cluster.toml"))
    return list(raised.value.problems)


# (what is added to BASE, line within it, key, part of the message, part of the hint)
ROWS = [
    ("[timing]\nheartbeat = 200\n", 2, "timing.heartbeat", "says no unit", '"200ms"'),
    ('[timing]\nheartbeat = "1s"\n', 2, "timing.heartbeat", "5 times heartbeat, 5 s, got 2 s", ""),
    ('[timing]\ndetect = "900ms"\n', 2, "timing.detect", "5 times heartbeat, 1 s", '"180ms"'),
    ('[timing]\ndetect = "2 weeks"\n', 2, "timing.detect", "a duration with its unit", ""),
    ('[timing]\nheartbeat = "1ms"\n', 2, "timing.heartbeat", "from 10ms to 10s", ""),
    ('[timing]\ndetect = "100ms"\n', 2, "timing.detect", "from 200ms to 5m", ""),
    ('[timing]\nhartbeat = "1s"\n', 2, "timing.hartbeat", "unknown key", '"heartbeat"'),
    ("[timings]\n", 1, "timings", "unknown table", '"timing"'),
    ("[application.web]\n", 1, "application", "unknown table", '"app"'),
    ("[arbiter]\n", 1, "arbiter", '"etcd" is missing', "URLs"),
    ("[arbiter]\netcd = []\n", 2, "arbiter.etcd", "the list is empty", ""),
    ("[arbiter]\nttl = 5\n", 2, "arbiter.ttl", "unknown key", ""),
    *(
        (f'[arbiter]\netcd = ["http://10.0.0.9:2379", "{url}"]\n', 2, "arbiter.etcd[1]", *said)
        for url, *said in (
            ("https://10.0.0.8:2379", "https is not supported", ""),
            ("http://etcd.example:2379", "etcd.example is not an IP address", "looked up"),
            ("10.0.0.8:2379", "a URL, such as", ""),
            ("http://me@10.0.0.8:2379", "nothing but an address", ""),
            ("http://10.0.0.9:2379", "is there twice", ""),
        )
    ),
    (
        f'{VIP}[arbiter]\netcd = ["http://10.0.0.100:2379"]\n',
        5,
        "arbiter.etcd[0]",
        "where the primary is",
        "store",
    ),
    ("[node.c]\n", 1, "node.c", "exactly two nodes", ""),
    ("[node.a.x]\n", 1, "node.a.x", "unknown key", "no keys"),
    ('[link.two]\na = "10.1.0.1"\n', 1, "link.two", "node b is missing", ""),
    ('[link.two]\na = "10.1.0.1"\nbb = "10.1.0.2"\n', 3, "link.two.bb", "name of a node", '"b"'),
    ('[link.two]\na = "10.0.0.1"\nb = "10.1.0.2"\n', 2, "link.two.a", "of link.lan.a", ""),
    ('[link.two]\na = "10.1.0.1/24"\nb = "10.1.0.2"\n', 2, "link.two.a", "prefix", "leave out"),
    ('[link.two]\na = "host"\nb = "10.1.0.2"\n', 2, "link.two.a", "IP address of a host", ""),
    ('[link.two]\na = "::1"\nb = "10.1.0.2"\n', 1, "link.two", "both IPv6", ""),
    ('[vip.v]\naddress = "10.0.0.9"\ninterface = "e"\n', 2, "vip.v.address", "prefix", "/24"),
    ('[vip.v]\naddress = "10.0.0.0/24"\ninterface = "e"\n', 2, "vip.v.address", "network", ""),
    ('[vip.v]\naddress = "10.0.0.1/24"\ninterface = "e"\n', 2, "vip.v.address", "link.lan.a", ""),
    ('[vip.v]\naddress = "10.0.0.9/24"\n', 1, "vip.v", '"interface" is missing', "carries"),
    ('[vip]\naddress = "10.0.0.9/24"\n', 2, "vip.address", "expected a table", "[vip.NAME]"),
    ("vip = 3\n", 0, "", "", ""),
    ('[replicate.d]\npath = "data"\n', 2, "replicate.d.path", "relative", "/srv/data"),
    ('[replicate.d]\npath = "/"\n', 2, "replicate.d.path", "root directory", ""),
    ('[replicate.d]\npath = "/a/../b"\n', 2, "replicate.d.path", '".."', ""),
    ('[replicate.d]\npath = "/etc"\n', 2, "replicate.d.path", "/etc/haoperator", ""),
    ('[replicate.d]\npath = "/run/x"\n', 2, "replicate.d.path", "because of /run", ""),
    ("[replicate.d]\n", 1, "replicate.d", "exactly one of the keys path or docker_volume", ""),
    (
        '[replicate.d]\ndocker_volume = "/srv"\n',
        2,
        "replicate.d.docker_volume",
        "the name of a Docker volume",
        "",
    ),
    (
        '[replicate.d]\npath = "/var/lib/docker"\n[replicate.e]\ndocker_volume = "pg"\n',
        4,
        "replicate.e.docker_volume",
        "lie in one another",
        "outer",
    ),
    (
        '[replicate.d]\npath = "/d"\n[replicate.e]\npath = "/d/e"\n',
        4,
        "replicate.e.path",
        "lie in one another",
        "outer",
    ),
    (
        '[replicate.d]\npath = "/d/e"\n[replicate.e]\npath = "/d//./"\n',
        4,
        "replicate.e.path",
        "/d and /d/e of replicate.d lie in one another",
        "outer",
    ),
    (
        '[replicate.d]\npath = "/d"\n[replicate.e]\npath = "//d/."\n',
        4,
        "replicate.e.path",
        "is the directory of replicate.d already",
        "one table",
    ),
    (
        '[replicate.d]\npath = "/d"\ndurability = "fsink"\n',
        3,
        "replicate.d.durability",
        'expected "write" or "fsync", got "fsink"',
        '"fsync"',
    ),
    ('[replicate.d]\npath = "/d"\nexclude = []\n', 3, "replicate.d.exclude", "not supported", ""),
    *(
        (f"[app.w]\n{lines}\n", lines.count("\n") + 2, f"app.w.{key}", message, hint)
        for lines, key, message, hint in (
            ('compose = "compose.yaml"', "compose", "it is relative", "/srv/"),
            ('compose = "/c"\nports = ["80"]', "ports", "image only", "compose"),
            ('image = "x"\nprofiles = ["a"]', "profiles", "compose only", "image"),
            ('unit = "nginx"', "unit", "the name of a systemd unit", '"nginx.service"'),
            ('unit = "ha-vip@front.service"', "unit", "by the cluster itself", "an application"),
            ('unit = "docker.service"', "unit", "by the cluster itself", "an application"),
            ('exec = "shop"', "exec", "not absolute", "PATH"),
            ('image = "x"\nexec_stop = "/b"', "exec_stop", "exec only", "image"),
            ('image = "x"\nready = "tcp:80"', "ready", "a host and a port", ""),
            ('image = "x"\nready = "log:("', "ready", "no regular expression", ""),
            ('image = "x"\nready = "log"', "ready", '"log:REGULAR', ""),
            ('image = "x"\nready = "soon"', "ready", '"notify" or "none"', ""),
            ('image = "x"\nready = "notify"', "ready", 'not by "notify"', ""),
            ('unit = "x.service"\nready = "health"', "ready", 'by "tcp" or "none"', ""),
            ('image = "x"\nstart_timeout = 5', "start_timeout", "says no unit", '"5s"'),
            ('image = "x"\nstop_timeout = "5m"', "stop_timeout", "from 1s to 2m", ""),
        )
    ),
    (
        '[app.v]\ncompose = "/c"\n[app.w]\ncompose = "/c"\n',
        4,
        "app.w.compose",
        "is that of app.v already",
        "",
    ),
    (
        '[app.v]\nimage = "x"\nstop_timeout = "90s"\n'
        '[app.w]\nimage = "x"\nafter = ["v"]\nstop_timeout = "31s"\n',
        7,
        "app.w.stop_timeout",
        "w and those before it may take 121 s to stop",
        "less",
    ),
    ('[app.w]\nimage = "x"\ncontainer = "y"\n', 2, "app.w.image", "exactly one", ""),
    ('[app.w]\nports = ["80"]\n', 1, "app.w", "exactly one", ""),
    ('[app.w]\ncontainer = "x"\nports = ["80"]\n', 3, "app.w.ports", "image only", "container"),
    ('[app.w]\nimage = "x"\nports = "80:80"\n', 3, "app.w.ports", "a list", '["80:80"]'),
    ('[app.w]\nimage = "x"\nports = [\n"80:80",\n80]\n', 5, "app.w.ports[1]", "element 2", ""),
    ('[app.w]\nimage = "x"\nports = ["70000:80"]\n', 3, "app.w.ports[0]", "1 to 65535", ""),
    ('[app.w]\nimage = "x"\nvolumes = ["a b:c"]\n', 3, "app.w.volumes[0]", "a volume", ""),
    ('[app.w]\nimage = "x"\nenv = {}\n', 3, "app.w.env", "unknown key", '"environment"'),
    ('[app.w]\nimage = "x"\n[app.w.environment]\nA = 1\n', 4, "app.w.environment.A", "string", ""),
    ('[app.w]\nimage = "x"\nafter = ["y"]\n', 3, "app.w.after[0]", "there is no [app.y]", ""),
    ('[app.w]\nimage = "x"\nafter = ["w"]\n', 3, "app.w.after", "w after w", ""),
    ('[app.w]\nimage = "x"\nmax_restarts = -1\n', 3, "app.w.max_restarts", "0 to 1000", ""),
    ('[app."my app"]\nimage = "x"\n', 1, "app.my app", "a name of letters", ""),
    ('[app.w]\nimage = "${X}"\n', 2, "app.w.image", "macro ${X} is not defined", "[macros]"),
    ('[app.w]\nimage = ""\n', 2, "app.w.image", "empty", ""),
    *(
        (f"{APP}{line}\n", 3, f"app.web.{key}", message, hint)
        for line, key, message, hint in (
            ('env_file = ["shop.env"]', "env_file[0]", "it is relative", "/srv/shop.env"),
            ('user = "a b"', "user", "a user, with a group", ""),
            ('hostname = "-shop"', "hostname", "a host name", ""),
            ('entrypoint = "sh -c"', "entrypoint", "a list", '["sh -c"]'),
            ('workdir = "app"', "workdir", "it is relative", ""),
            ('privileged = "yes"', "privileged", "true or false", ""),
            ('gpus = "some"', "gpus", '"device=0,2"', ""),
            ("memory = 512", "memory", "says no unit", '"512MiB"'),
            ('memory = "1MiB"', "memory", "from 6MiB to", ""),
            ('cpus = "2"', "cpus", "a number", "without quotes"),
            ("cpus = 0", "cpus", "from 0.01 to 4096", ""),
            ("ulimits = { files = 1 }", "ulimits.files", "is not one of", ""),
            ('ulimits = { nofile = "9:1" }', "ulimits.nofile", "above the hard one", ""),
            ('capabilities = ["net"]', "capabilities[0]", "a capability of Linux", ""),
            ('cap_add = ["ALL"]', "cap_add", "unknown key", '"capabilities"'),
            ('devices = ["ttyUSB0"]', "devices[0]", "a device as Docker", ""),
            ("labels = { a = 1 }", "labels.a", "not a string", ""),
            (
                'labels = { "org.haoperator1.app" = "x" }',
                "labels.org.haoperator1.app",
                "itself",
                "",
            ),
            ('log_driver = ""', "log_driver", "it is empty", ""),
            ("log_options = []", "log_options", 'max-size = "10m"', ""),
            ('healthcheck = { interval = "1s" }', "healthcheck", "no command", "redis-cli"),
            (
                'healthcheck = { command = "x", every = 1 }',
                "healthcheck.every",
                "is not one of",
                "",
            ),
            (
                'healthcheck = { command = "x", interval = 2 }',
                "healthcheck.interval",
                "says no unit",
                '"2s"',
            ),
            ('healthcheck = "none"', "healthcheck", "a table", ""),
            ('tmpfs = ["run"]', "tmpfs[0]", "a path with options", ""),
            ('extra_hosts = ["db:host"]', "extra_hosts[0]", "is no IP address", ""),
            ('dns = ["ns1"]', "dns[0]", "IP address of a host", ""),
            ('stop_signal = "SIGNOPE"', "stop_signal", "no such signal", ""),
            ('ports = ["80"]\nnetwork = "host"', "ports", 'with network = "host"', "as it is"),
        )
    ),
    (APP + '[checker.c]\napp = "web"\n', 3, "checker.c", "http, tcp, exec, container", ""),
    ('[checker.c]\ntcp = "h:1"\n', 1, "checker.c", 'needs the key "app"', "failover"),
    (APP + '[checker.c]\ntcp = "h:1"\napp = "wep"\n', 5, "checker.c.app", "no [app.wep]", "web"),
    (APP + '[checker.c]\ntcp = "h"\napp = "web"\n', 4, "checker.c.tcp", "a host and a port", ""),
    (APP + '[checker.c]\nhttp = "h"\napp = "web"\n', 4, "checker.c.http", "a URL", ""),
    (APP + '[checker.c]\nexec = "ls"\napp = "web"\n', 4, "checker.c.exec", "absolute", "PATH"),
    (
        APP + '[checker.c]\ntcp = "h:1"\napp = "web"\ntimeout = "5s"\n',
        6,
        "checker.c.timeout",
        "at most the interval, 2 s",
        "",
    ),
    *(
        (f"[checker.c]\n{lines}\n", lines.count("\n") + 2, f"checker.c.{key}", message, hint)
        for lines, key, message, hint in (
            ('tcp = "h:1"\non_failure = "stop"', "on_failure", 'needs the key "app"', "notify"),
            ('disk = "srv"', "disk", "it is relative", "/srv/srv"),
            ('disk = "/"\nfree = "0%"', "free", "from 0% to 100%", ""),
            ('disk = "/"\nfree = 5', "free", "says no unit", '"5%"'),
            ('tcp = "h:1"\nfree = "5%"', "free", "disk only", "tcp"),
            ("docker = false", "docker", "expected true", "take this table out"),
            ('vip = "fromt"', "vip", "no [vip.fromt]", ""),
            ('process = "bin/x"', "process", "neither a name nor", ""),
            ('ping = "router"', "ping", "IP address of a host", ""),
            ('link = "eth 0"', "link", "a network interface", ""),
            ('unit = "nginx"', "unit", "a systemd unit", '"nginx.service"'),
            ('redis = "6379"', "redis", "a host and a port", ""),
            ('http = "http://h/"\nstatus = 99', "status", "from 100 to 599", ""),
            ('http = "http://h/"\ncertificate_left = "30d"', "certificate_left", "https", ""),
            ('http = "http://h/"\ncheck_certificate = true', "check_certificate", "https", ""),
            ('ping = "10.0.0.9"\non = "standby"', "on", '"primary" or "both"', ""),
            ('ping = "10.0.0.9"\nrise = 3', "rise", "unknown key", '"successes"'),
        )
    ),
    (
        '[vip.v]\naddress = "10.0.0.9/24"\ninterface = "e"\n'
        '[checker.c]\nvip = "v"\non = "both"\non_failure = "failover"\n',
        6,
        "checker.c.on",
        "where the primary is",
        "take this key out",
    ),
    ("[witness]\nping = []\n", 2, "witness.ping", "the list is empty", ""),
    ('[witness]\nping = ["10.0.0.2"]\n', 2, "witness.ping[0]", "the cluster itself", "router"),
    ("[witness]\n", 1, "witness", "at least one of the keys ping, tcp or http", "outside"),
    ("[witness]\nhttp = []\n", 2, "witness.http", "the list is empty", ""),
    ('[witness]\ntcp = ["10.0.0.9"]\n', 2, "witness.tcp[0]", "an address and a port", ""),
    ('[witness]\ntcp = ["gw:22"]\n', 2, "witness.tcp[0]", "not an IP address", "looked up"),
    ('[witness]\ntcp = ["[fd00::9]:0"]\n', 2, "witness.tcp[0]", "an address and a port", ""),
    ('[witness]\ntcp = ["10.0.0.1:22"]\n', 2, "witness.tcp[0]", "the cluster itself", ""),
    ('[witness]\nhttp = ["http://gw/"]\n', 2, "witness.http[0]", "not an IP address", ""),
    ('[witness]\nhttp = ["http://10.0.0.1"]\n', 2, "witness.http[0]", "cluster itself", ""),
    ("[macros]\nA = 1\n", 2, "macros.A", "expected a string", "quotes"),
    ('[macros]\nA = "${B}"\nB = "b"\n', 2, "macros.A", "${B} is not defined", ""),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[2]}: {row[3]}"[:60])
def test_error_names_line_key_expectation_and_way_out(row: tuple[str, int, str, str, str]) -> None:
    text, line, key, message, hint = row
    if not line:  # a key before any table cannot be appended to BASE
        found = problems(text + BASE)
        assert found[0].line == 1
        assert "[vip.NAME]" in found[0].message
        return
    found = [problem for problem in problems(BASE + text) if problem.key == key]
    assert found, problems(BASE + text)
    assert found[0].line == BASE_LINES + line
    assert message in found[0].message
    assert hint in found[0].hint
    assert str(found[0]).startswith(f"cluster.toml:{BASE_LINES + line}: {key}: ")


def test_all_problems_are_found_at_once_in_the_order_of_the_lines() -> None:
    text = BASE + '[timing]\ndetect = 2\nx = 1\n[app.w]\nports = [1]\n[replicate.d]\npath = "d"\n'
    found = problems(text)
    assert [problem.key for problem in found] == [
        "timing.detect",
        "timing.x",
        "app.w",
        "app.w.ports[0]",
        "replicate.d.path",
    ]


def test_a_cycle_of_applications_is_spelled_out() -> None:
    text = BASE + "".join(
        f'[app.{app}]\nimage = "x"\nafter = ["{after}"]\n' for app, after in ("ab", "bc", "ca")
    )
    assert "a after b after c after a" in problems(text)[0].message


def test_missing_tables_are_named() -> None:
    assert {problem.message for problem in problems("")} == {
        "there is no [cluster]",
        "there is no [node.NAME]",
        "there is no [link.NAME]",
    }


def test_syntax_error_carries_the_line() -> None:
    (problem,) = problems(BASE + 'x = = "y"\n')
    assert (problem.line, problem.key) == (BASE_LINES + 1, "")
    assert "not TOML" in problem.message


def test_text_that_ends_too_early_carries_the_last_line() -> None:
    (problem,) = problems(BASE + "[app.w]\nports = [\n")
    assert problem.line == BASE_LINES + 2


def test_bytes_that_are_no_utf8_carry_the_line() -> None:
    (problem,) = problems(BASE.encode() + b'x = "\xff"\n')
    assert problem.line == BASE_LINES + 1


def test_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "nul\0"):
        with pytest.raises(ConfigError, match="cannot be read"):
            tomlconfig.load(path)


def test_every_key_that_is_not_supported_is_refused() -> None:
    for table in schema.TABLES.values():
        for key in table.keys:
            if not key.supported and table.supported:
                header = f"[{table.name}.x]" if table.named else f"[{table.name}]"
                found = problems(f"{BASE}{header}\n{key.name} = 1\n")
                assert any("not supported yet" in problem.message for problem in found), key.name


_WORDS = st.sampled_from(
    [*schema.TABLES, *(key.name for table in schema.TABLES.values() for key in table.keys), "x"]
)
_SCALARS = (
    *('"2s"', '"200ms"', '"/srv"', '"10.0.0.1"', '"10.0.0.1/24"', "3", "-1", "true", "1.5", '"a"'),
    *("1979-05-27", '"write"', '"h:80"', '"${A}"', '"http://h/"', "'''m\nn'''", "nan", "inf"),
)
_VALUES = st.recursive(
    st.sampled_from(_SCALARS),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[\n" + ", ".join(items) + "]"),
    max_leaves=5,
)
_LINES = st.one_of(
    st.tuples(_WORDS, _WORDS).map(lambda words: f"[{words[0]}.{words[1]}]"),
    _WORDS.map(lambda word: f"[{word}]"),
    st.tuples(_WORDS, _VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.tuples(_WORDS, _WORDS, _VALUES).map(lambda words: "{}.{} = {}".format(*words)),
)


@given(st.one_of(st.text(), st.binary(), st.lists(_LINES, max_size=12).map("\n".join)))
def test_no_text_raises_anything_but_config_error(text: str | bytes) -> None:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    for content in (data, BASE.encode() + data):
        for problem in _problems_if_any(content):
            assert 0 <= problem.line <= content.count(b"\n") + 1
            assert problem.message


def _problems_if_any(content: bytes) -> tuple[Problem, ...]:
    try:
        tomlconfig.parse(content, Path("cluster.toml"))
    except ConfigError as err:
        return err.problems
    return ()


@pytest.mark.parametrize("data", [b"x = " + b"[" * 100_000, b"x = " + b"9" * 5_000, b"#" * 2**21])
def test_hostile_text_is_refused_as_config_error(data: bytes) -> None:
    assert problems(data)
