"""Errors caused by user input; printed as one line, without a traceback."""

from __future__ import annotations

import errno
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = ("No space left on device", "File too large", "Disk quota exceeded")


class UserError(ValueError):
    """A setting or a file that cannot be used; the message says what would be accepted."""


class ConfigError(UserError):
    """A setting with a value that is not accepted.

    Args:
      field: name of the setting, as the configuration and the flag spell it.
      got: the value that was given, or a phrase that describes it.
      accepted: what would be accepted, in words.

    Example:
      >>> print(ConfigError("depth", 9, "8, 14, 20, ..., 6 n + 2"))
      depth: got 9; accepted: 8, 14, 20, ..., 6 n + 2
    """

    def __init__(self, field: str, got: Any, accepted: str):
        self.field, self.got, self.accepted = field, got, accepted
        super().__init__(f"{field}: got {got}; accepted: {accepted}")

    def __reduce__(self):  # Exceptions are rebuilt from their arguments in another process.
        return type(self), (self.field, self.got, self.accepted)


class SaveError(RuntimeError):
    """A checkpoint that does not read back as it was saved."""


class NonFiniteError(RuntimeError):
    """A loss, a parameter or another quantity of a trial became infinite or not a number."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this error, or one that caused it, says that no space is left.

    Libraries written in C++ raise types of their own, where only the text tells.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(text in str(error) for text in _FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False
