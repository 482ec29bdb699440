import builtins

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.codebooks import figures
from movq_jax.evaluation.codebooks.figures import Use


def use(size, label="book"):
    codes = np.arange(0, size, 2)
    return Use(label, size, codes, 1 + np.arange(len(codes)) % 7)


def test_they_draw():
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    uses = [use(8, "all"), use(1000), use(2**30 // 2**20)]
    many = [use(8, f"channel {n}") for n in range(12)]
    bars = figures.usage_bars(uses)
    assert bars.dtype == np.uint8 and bars.shape[1:] == (1080, 3)
    curves = figures.sorted_curves({"book": uses, "other": many})
    distances = figures.distance_bars({"book": np.zeros(2), "other": np.arange(9.0)})
    for picture in (bars, curves, distances):
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_bins_hold_whole_codes():
    assert figures._bin_edges(5).tolist() == [0, 1, 2, 3, 4, 5]
    edges = figures._bin_edges(1000)
    assert len(edges) == 257 and edges[0] == 0 and edges[-1] == 1000
    assert np.diff(edges).min() >= 3


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'movq_jax\[plots\]'"):
        figures.check_plots()
