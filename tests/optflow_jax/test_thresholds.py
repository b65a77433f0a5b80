"""Every number that a backend changes says where it is from."""

import pytest

from optflow_jax import _thresholds

TABLES = [t for name, t in vars(_thresholds).items() if name.isupper() and name[0] != "_"]


@pytest.mark.parametrize("table", TABLES)
def test_a_threshold_has_a_value_and_a_source_for_every_backend(table):
    assert table.keys() == {"cpu", "other"}
    for threshold in table.values():
        assert isinstance(threshold.value, int)
        assert threshold.source.startswith(("measured on ", "not measured: "))
        assert threshold.source.startswith("not") or " at " in threshold.source
