"""A flag that the installed jaxlib does not know is not passed: XLA would end the process."""

import pytest

from tests import xla_flags

KNOWN = "--xla_backend_optimization_level=0"


@pytest.mark.parametrize(
    "unknown",
    [
        (),
        ("--xla_no_such_flag=false",),
        ("--xla_no_such_flag=false", "--xla_backend=0"),  # the second begins as the known one does
    ],
)
def test_flags_that_jaxlib_does_not_know_are_left_out(unknown):
    assert xla_flags.known((*unknown[:1], KNOWN, *unknown[1:])) == [KNOWN]
