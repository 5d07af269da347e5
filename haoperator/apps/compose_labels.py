# SPDX-License-Identifier: Apache-2.0
"""The labels by which compose knows the containers of its projects."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

ONE_OFF = "com.docker.compose.oneoff"
_FILES = "com.docker.compose.project.config_files"
_DIRECTORY = "com.docker.compose.project.working_dir"


def belongs(labels: Mapping[str, str], file: str) -> bool:
    """Whether a container with these labels is of the project of a compose file."""
    directory = labels.get(_DIRECTORY, "/")
    files = labels.get(_FILES, "").split(",")
    return file in (posixpath.normpath(posixpath.join(directory, each)) for each in files if each)
