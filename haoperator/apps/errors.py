# SPDX-License-Identifier: Apache-2.0
"""Why an application cannot run, said so that it can be put right."""

from haoperator.lean.configuration import EXIT_MISCONFIGURED

EXIT_TRY_AGAIN = 1


class AppError(Exception):
    """`hint` is the way out. `final`: starting it again would not help before that."""

    def __init__(self, message: str, hint: str = "", *, final: bool = False) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.exit_code = EXIT_MISCONFIGURED if final else EXIT_TRY_AGAIN
