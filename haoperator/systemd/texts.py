# SPDX-License-Identifier: Apache-2.0
"""What the generator writes, as pure functions from a configuration to texts.

Order on the way up: gate, virtual IPs, applications in their `after` order,
checkers; systemd stops them in the reverse. What does not depend on the
configuration stands in the static units.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from haoperator.lean.configuration import EXIT_MISCONFIGURED, VIP_VARIABLE
from haoperator.systemd import names
from tomlconfig import App, AppKind, Checker, Config, ReadyKind, Replicate, RunsOn, Seconds, Vip

START_MARGIN_SECONDS = 60.0
"""For waiting for dockerd, and for making a container."""
STOP_MARGIN_SECONDS = 20.0
"""For a dockerd that is slow or stuck, and for a kill (haoperator.apps.waiter)."""

CHECKER_START_MARGIN_SECONDS = 20.0
"""For a busy machine to start the program, before the first answer."""

_ERRORS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Generated:
    """Files by their path below the generator's directory, and links with their targets."""

    files: Mapping[str, str]
    links: Mapping[str, str]


def for_config(config: Config, claimed: Collection[PurePath] = ()) -> Generated:
    """Everything for a node of this cluster; but for `claimed` it is the same on both.

    `claimed`: directories that have a mount unit which is not ours (claims.py).
    """
    files: dict[str, str] = {}
    links = {_wanted(names.CLUSTER, unit): _packaged(unit) for unit in names.DAEMONS}
    for directory in config.replicate:
        unit = names.covering(directory.name, directory.path, claimed)
        make = mount_service if directory.path in claimed else mount_unit
        files[unit] = make(directory, config.source)
        links[_wanted(names.CLUSTER, unit)] = f"../{unit}"
    if config.replicate:
        mounts = _mounts(config, claimed)
        files[_drop_in(names.REPLICATOR)] = replicator_drop_in(mounts, config.source)
        files[_drop_in(names.OPERATOR)] = operator_drop_in(mounts, config.source)
        files[_drop_in(names.PROMOTE)] = gate_drop_in(mounts, config.source)
    for vip in config.vips:
        unit = names.vip(vip.name)
        files[_drop_in(unit)] = vip_drop_in(vip, config.source)
        links[_wanted(names.PRIMARY, unit)] = _packaged(unit)
    for app in config.apps:
        unit = names.app(app.name)
        files[_drop_in(unit)] = app_drop_in(app, config)
        links[_wanted(names.PRIMARY, unit)] = _packaged(unit)
        if app.kind is AppKind.UNIT:
            files[_drop_in(app.target)] = unit_drop_in(app, config)
    if any(app.kind.is_docker for app in config.apps):
        links[_wanted(names.CLUSTER, names.GUARD)] = _packaged(names.GUARD)
    for checker in config.checkers:
        unit = names.checker(checker.name)
        files[_drop_in(unit)] = checker_drop_in(checker, config, claimed)
        target = names.CLUSTER if checker.on is RunsOn.BOTH else names.PRIMARY
        links[_wanted(target, unit)] = _packaged(unit)
    return Generated(files, links)


def for_error(source: Path, message: str) -> Generated:
    """Nothing but a unit that fails and says what is wrong with the configuration."""
    return Generated(
        {names.CONFIG_ERROR: error_unit(source, message)},
        {_wanted(names.CLUSTER, names.CONFIG_ERROR): f"../{names.CONFIG_ERROR}"},
    )


def mount_unit(directory: Replicate, source: Path) -> str:
    """The mount of one replicated directory over itself.

    `Before=docker.service`: a container that dockerd starts by itself at boot sees the
    read-only mount, not the plain directory below it. Lazy, because somebody who
    stands in the directory shall not keep this node from leaving the cluster.
    """
    return _file(
        source,
        {
            "Unit": [
                f"Description=High availability: replicated directory {directory.name}",
                "Documentation=man:mount.haoperator(8)",
                f"SourcePath={_literal(str(source))}",
                # Not before local-fs.target, as a mount is by default: this one needs the bus.
                "DefaultDependencies=no",
                f"Wants={names.REPLICATOR}",
                f"After={names.CLUSTER} local-fs.target {names.REPLICATOR}",
                "Before=docker.service umount.target",
                "Conflicts=umount.target",
                f"PartOf={names.CLUSTER}",
            ],
            "Mount": [
                f"What={directory.name}",
                f"Where={_literal(str(directory.path))}",
                "Type=haoperator",
                "LazyUnmount=yes",
                "TimeoutSec=30s",
            ],
        },
    )


def mount_service(directory: Replicate, source: Path) -> str:
    """The same where the directory is a mount point: after the unit that mounts it."""
    return _file(
        source,
        {
            "Unit": [
                f"Description=High availability: replicated directory {directory.name}",
                "Documentation=man:mount.haoperator(8)",
                f"SourcePath={_literal(str(source))}",
                "DefaultDependencies=no",
                f"RequiresMountsFor={_quoted(str(directory.path))}",
                f"Wants={names.REPLICATOR}",
                f"After={names.CLUSTER} local-fs.target {names.REPLICATOR}",
                "Before=docker.service umount.target",
                "Conflicts=umount.target",
                f"PartOf={names.CLUSTER}",
            ],
            "Service": [
                "Type=notify",
                "ExecStart=/usr/sbin/mount.haoperator --hold "
                f"{directory.name} {_quoted(str(directory.path)).replace('$', '$$')}",
                "TimeoutSec=30s",
            ],
        },
    )


def replicator_drop_in(mounts: str, source: Path) -> str:
    """While the replicator is up its mounts are too: one that failed or was undone comes back."""
    return _file(source, {"Unit": [f"Upholds={mounts}"]})


def operator_drop_in(mounts: str, source: Path) -> str:
    """The operator leaves before the mounts do."""
    return _file(source, {"Unit": [f"After={mounts}"]})


def gate_drop_in(mounts: str, source: Path) -> str:
    """No gate without the mounts: if one of them goes, the role goes, in order."""
    return _file(source, {"Unit": [f"BindsTo={mounts}", f"After={mounts}"]})


def vip_drop_in(vip: Vip, source: Path) -> str:
    """What the unit has to know. To read the configuration itself would take a tenth of a
    second on the path of every failover, and fail while there is an error in the file."""
    address = vip.address
    fields = f"{address.ip} {address.network.prefixlen} {vip.interface}"
    return _file(source, {"Service": [f"Environment={_quoted(f'{VIP_VARIABLE}={fields}')}"]})


def app_drop_in(app: App, config: Config) -> str:
    """When an application starts, how long it may take, and how often it may start again.

    The first start counts in systemd's limit, hence one more than `max_restarts`. systemd's
    own time limits are behind those of `ha-app`, which says what it waited for.
    """
    before = _before(app, config)
    unit = [f"After={' '.join(before)}"] if before else []
    if app.kind is AppKind.UNIT:
        # So that an isolate of the role, which stops what nothing pulls in, leaves it alone.
        unit.append(f"Wants={_escaped(app.target)}")
    if app.kind.is_docker:
        # Ordered and wanted, not required: a restart of dockerd is no failure of the application.
        unit.append("Wants=docker.service")
        unit.append("After=docker.service docker.socket containerd.service")
    if config.replicate:
        paths = " ".join(_quoted(str(directory.path)) for directory in config.replicate)
        unit.append(f"RequiresMountsFor={paths}")
    unit.append(f"StartLimitIntervalSec={_seconds(app.restart_window)}")
    unit.append(f"StartLimitBurst={app.max_restarts + 1}")
    service = [
        f"TimeoutStartSec={_seconds(app.start_timeout + app.stop_timeout + START_MARGIN_SECONDS)}",
        f"TimeoutStopSec={_seconds(app.stop_timeout + STOP_MARGIN_SECONDS)}",
    ]
    if app.kind is AppKind.EXEC:
        # It is the application itself that runs here.
        service += ["OOMScoreAdjust=0", "UMask=0022"]
        if app.ready is not None and app.ready.kind is ReadyKind.NOTIFY:
            service.append("NotifyAccess=all")
    return _file(config.source, {"Unit": unit, "Service": service})


def unit_drop_in(app: App, config: Config) -> str:
    """A unit that is an application starts behind the open gate only, whoever starts it, and
    stops before the gate closes."""
    before = " ".join([names.PROMOTE, *_before(app, config)])
    unit = [f"Requisite={names.PROMOTE}", f"After={before}"]
    if config.replicate:
        paths = " ".join(_quoted(str(directory.path)) for directory in config.replicate)
        unit.append(f"RequiresMountsFor={paths}")
    return _file(config.source, {"Unit": unit})


def _before(app: App, config: Config) -> list[str]:
    """What an application starts after, and stops before."""
    before = [names.vip(vip.name) for vip in config.vips]
    before += [names.app(name) for name in app.after]
    # A unit stops by itself when the gate closes: not before what comes after it.
    units = (other for other in config.apps if other.kind is AppKind.UNIT)
    return before + [_escaped(other.target) for other in units if other.name in app.after]


def checker_drop_in(checker: Checker, config: Config, claimed: Collection[PurePath] = ()) -> str:
    """After all that it may probe, with the watchdog that its promise makes.

    After the target that pulls it in too: a role is taken, however long it takes until all
    is well. `claimed`: as for `for_config`.
    """
    if checker.on is RunsOn.BOTH:
        mounts = [_mounts(config, claimed)] if config.replicate else []
        unit = [f"PartOf={names.CLUSTER}", f"After={' '.join([names.CLUSTER, *mounts])}"]
    else:
        before = [names.PRIMARY, names.PROMOTE, *(names.vip(vip.name) for vip in config.vips)]
        before += [names.app(app.name) for app in config.apps]
        unit = [
            f"PartOf={names.PRIMARY}",
            f"BindsTo={names.PROMOTE}",
            f"After={' '.join(before)}",
        ]
    silence = checker_watchdog(checker)
    service = [
        f"TimeoutStartSec={_seconds(silence + CHECKER_START_MARGIN_SECONDS)}",
        f"WatchdogSec={_seconds(silence)}",
        f"RestartSec={_seconds(checker.interval)}",
    ]
    return _file(config.source, {"Unit": unit, "Service": service})


def checker_watchdog(checker: Checker) -> Seconds:
    """The longest silence of a checker whose last `failures` probes were not all failures.

    A success, `failures` - 1 failed probes, and one that succeeds at the last moment:
    `failures` intervals and one `timeout`. Half a second is for a busy machine.
    """
    return checker.failures * checker.interval + checker.timeout + 0.5


def error_unit(source: Path, message: str) -> str:
    """A unit whose start fails with `message` in its status and in the journal."""
    lines = message.splitlines()[:_ERRORS_SHOWN] or ["unknown error"]
    return _file(
        source,
        {
            "Unit": [
                f"Description=High availability: {_literal(str(source))} has an error",
                "Documentation=man:hactl(1)",
                f"SourcePath={_literal(str(source))}",
                f"PartOf={names.CLUSTER}",
            ],
            "Service": [
                "Type=oneshot",
                f"ExecStart=/bin/sh -c 'cat >&2; exit {EXIT_MISCONFIGURED}'",
                "SyslogIdentifier=haoperator",
                "SyslogLevel=err",
                "StandardInput=data",
                *(f"StandardInputText={_escaped(line)}" for line in lines),
            ],
        },
    )


def _file(source: Path, sections: Mapping[str, Iterable[str]]) -> str:
    head = f"# Made by haoperator-generator from {source}. Changes here are lost.\n"
    parts = [
        f"[{name}]\n" + "".join(f"{line}\n" for line in lines)
        for name, lines in sections.items()
        if lines
    ]
    return head + "\n".join(parts)


def _mounts(config: Config, claimed: Collection[PurePath]) -> str:
    return " ".join(
        names.covering(directory.name, directory.path, claimed) for directory in config.replicate
    )


def _drop_in(unit: str) -> str:
    return f"{unit}.d/50-haoperator.conf"


def _wanted(target: str, unit: str) -> str:
    return f"{target}.wants/{unit}"


def _packaged(unit: str) -> str:
    return f"{names.UNIT_DIRECTORY}/{names.template_of(unit)}"


def _seconds(seconds: Seconds) -> str:
    return (
        f"{seconds:g}s" if seconds >= 1 and seconds == int(seconds) else f"{seconds * 1000:.0f}ms"
    )


def _literal(text: str) -> str:
    """`text` where systemd replaces specifiers but reads no quotes."""
    return text.replace("%", "%%")


def _escaped(text: str) -> str:
    """`text` where systemd replaces specifiers and C escapes."""
    return _literal(text.replace("\\", "\\\\"))


def _quoted(text: str) -> str:
    """`text` as one word of a list."""
    escaped = _escaped(text).replace('"', '\\"')
    return f'"{escaped}"'
