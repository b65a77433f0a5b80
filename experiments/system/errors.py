"""Errors that are the user's to mend: one clear line, no traceback."""

from __future__ import annotations

import errno


class UserError(ValueError):
    """A flag or a file that cannot be used as it is; the message says what would be accepted."""


class NonFiniteLossError(RuntimeError):
    """The loss of a trial became infinite or not a number."""


def is_disk_full(error: BaseException) -> bool:
    """Whether this error, or what caused it, says that no space is left.

    Libraries written in C++ raise their own types and only the text tells.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
