import jax
import jax.numpy as jnp
import pytest

from movq_jax.training import metrics
from movq_jax.training.metrics import average, compute, merge


def test_not_every_step_has_each_metric():
    parts = [{"a": average(1.0)}, {"a": average(3.0), "b": average(5.0)}, {}]
    assert compute(merge(parts), "train") == {"train/a": 2.0, "train/b": 5.0}


def test_a_mask_leaves_values_out():
    value = average(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False]))
    assert compute({"a": value}, "val") == {"val/a": 1.5}


def test_what_no_step_had_has_no_number():
    """Such as R1 in a log window between two of its steps: no NaN that alarms."""
    nothing = average(7.0, jnp.array(False))
    assert compute({"a": nothing, "b": average(1.0)}, "train") == {"train/b": 1.0}
    assert compute({"a": nothing.merge(average(3.0))}, "train") == {"train/a": 3.0}


@pytest.mark.parametrize("fold_at", [2, 5, 100])
def test_a_window_is_folded_without_a_trace(monkeypatch, fold_at):
    monkeypatch.setattr(metrics, "_FOLD_AT", fold_at)
    window = metrics.Window()
    for turn in (1, 2):
        for step in range(20):
            window.append({"a": average(turn * step / 7)})
            assert len(window._parts) <= fold_at + 1
        folded = compute(window.take(), "train")
        parts = [{"a": average(turn * step / 7)} for step in range(20)]
        assert folded == compute(merge(jax.device_get(parts)), "train")
