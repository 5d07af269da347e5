# SPDX-License-Identifier: Apache-2.0
"""The C extension. Everything else about the project stands in pyproject.toml."""

import os
import platform
from glob import glob

from setuptools import Extension, setup

WARNINGS = ["-Wall", "-Wextra"]
HARDENING = [
    "-D_FORTIFY_SOURCE=2",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
]
BRANCHES = {"x86_64": ["-fcf-protection=full"], "aarch64": ["-mbranch-protection=standard"]}
"""Only marked places can be jumped and returned to, where the processor knows of it."""
READ_ONLY_LINKS = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]

# A build that watches itself checks more than these do, and does not go together with them.
watched = "-fsanitize=" in os.environ.get("CFLAGS", "")
hardening = [] if watched else [*HARDENING, *BRANCHES.get(platform.machine(), [])]

setup(
    ext_modules=[
        Extension(
            "haoperator.replica._hotpath",
            sources=sorted(glob("haoperator/replica/*.c")),
            depends=sorted(glob("haoperator/replica/*.h")),
            libraries=["ssl", "crypto"],
            extra_compile_args=[*([] if watched else ["-O2"]), *WARNINGS, *hardening],
            extra_link_args=[] if watched else READ_ONLY_LINKS,
        )
    ]
)
