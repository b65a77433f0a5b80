"""Every number that a backend changes says where it is from."""

import jax
import pytest

from channel_grad import _circulant, _thresholds
from channel_grad._circulant import GreenCirculant, SpectralCirculant

TABLES = {name: table for name, table in vars(_thresholds).items() if name.isupper()}


@pytest.mark.parametrize("table", [t for n, t in TABLES.items() if n[0] != "_"])
def test_a_threshold_has_a_value_and_a_source_for_every_backend(table):
    assert table.keys() == {"cpu", "other"}
    for threshold in table.values():
        assert isinstance(threshold.value, int)
        assert threshold.source.startswith(("measured on ", "not measured: "))
        assert threshold.source.startswith("not") or " at " in threshold.source


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_table_decides_which_method_is_taken(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(_circulant, "several_devices", lambda: False)
    green, spectral = GreenCirculant(1.0, 1.0, 1.0), SpectralCirculant(lambda t: t)
    key = "cpu" if backend == "cpu" else "other"
    dense = _thresholds.DENSE_UP_TO[key].value
    without = _thresholds.DENSE_UP_TO_WITHOUT_PREFIX[key].value
    prefix = _thresholds.PREFIX_UP_TO[key].value
    chosen = [_circulant._choose(green, n, "auto") for n in (dense, dense + 1, prefix, prefix + 1)]
    assert chosen == ["dense", "prefix", "prefix", "fft"]
    assert [_circulant._choose(spectral, n, "auto") for n in (without, without + 1)] == [
        "dense", "fft",
    ]  # fmt: skip
    mean, product = GreenCirculant(1.0, 1.0), _thresholds.MEAN_AS_PRODUCT_UP_TO[key].value
    lengths = (1, product, product + 1, 10**6)
    expected = ["prefix" if n > product else "dense" for n in lengths]
    assert [_circulant._choose(mean, n, "auto") for n in lengths] == expected
    monkeypatch.setattr(_circulant, "several_devices", lambda: True)
    assert {_circulant._choose(mean, n, "auto") for n in lengths} == {"prefix"}
