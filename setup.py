# SPDX-License-Identifier: Apache-2.0
"""The C extension. Everything else about the project stands in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "haoperator.replica._hotpath",
            sources=sorted(glob("haoperator/replica/*.c")),
            depends=sorted(glob("haoperator/replica/*.h")),
            # The rest, hardening among it, comes from CFLAGS and LDFLAGS.
            extra_compile_args=["-O2", "-Wall", "-Wextra"],
        )
    ]
)
