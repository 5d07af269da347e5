# SPDX-License-Identifier: Apache-2.0
"""The cluster secret: what is accepted, what is refused with a way out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from haoperator import secret

ME = os.getuid()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.key"
    secret.generate(path)
    return path


def test_generated_secret_is_private_and_readable(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 65
    assert len(secret.read(key, ME)) == 32
    assert [p.name for p in key.parent.iterdir()] == ["cluster.key"]


def test_generate_never_replaces_a_secret(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(secret.SecretError, match="exists already"):
        secret.generate(key)
    assert key.read_bytes() == before
    assert [p.name for p in key.parent.iterdir()] == ["cluster.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o700])
def test_wrong_mode_is_refused_with_the_way_out(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(secret.SecretError, match="chmod 0600"):
        secret.read(key, ME)


def test_read_only_for_the_owner_is_accepted(key: Path) -> None:
    key.chmod(0o400)
    assert len(secret.read(key, ME)) == 32


def test_wrong_owner_is_refused(key: Path) -> None:
    with pytest.raises(secret.SecretError, match="belongs to uid"):
        secret.read(key, ME + 1)


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"ab" * 32, b"ab" * 31 + b"\n", b"zz" * 32 + b"\n", b"ab" * 32 + b"\n\n"],
)
def test_wrong_content_is_refused(key: Path, text: bytes) -> None:
    key.write_bytes(text)
    with pytest.raises(secret.SecretError, match="64 hexadecimal digits"):
        secret.read(key, ME)


def test_missing_secret_names_keygen(tmp_path: Path) -> None:
    with pytest.raises(secret.SecretError, match="hactl keygen"):
        secret.read(tmp_path / "nothing", ME)


def test_symbolic_link_is_refused(key: Path) -> None:
    link = key.with_name("link")
    link.symlink_to(key)
    with pytest.raises(secret.SecretError, match="plain file"):
        secret.read(link, ME)


def test_keys_of_two_purposes_differ_and_repeat() -> None:
    material = bytes(range(32))
    assert secret.derive(material, "heartbeat") == secret.derive(material, "heartbeat")
    assert secret.derive(material, "heartbeat") != secret.derive(material, "replication")
    assert len(secret.derive(material, "heartbeat")) == 32


def test_derivation_is_hkdf_of_rfc_5869() -> None:
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    hkdf = pytest.importorskip("cryptography.hazmat.primitives.kdf.hkdf")
    material = bytes(range(32))
    reference = hkdf.HKDF(hashes.SHA256(), 32, salt=b"org.haoperator1", info=b"heartbeat")
    assert secret.derive(material, "heartbeat") == reference.derive(material)
