import jax
import pytest

from movq_jax.measuring import rates


@pytest.mark.parametrize(
    "kind, teraflops",
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_datasheets(kind, teraflops):
    assert rates.datasheet_peak(kind) == teraflops * 1e12


def test_an_unknown_device():
    assert rates.datasheet_peak("cpu") is None


def test_the_fastest_product(monkeypatch):
    monkeypatch.setattr(rates, "_SIZES", {"cpu": (16, 32)})
    seconds = {16: 1.0, 32: 4.0}  # of 8 times the work

    def time_steps(run, limits):
        return [seconds[run.__self__.size]] * 3

    monkeypatch.setattr(rates, "time_steps", time_steps)
    product = rates.fastest_product("bfloat16", jax.devices()[0])
    assert product.size == 32 and product.flops == 2 * 32**3
    out = product.run()
    assert out.shape == (32, 32) and out.dtype == "bfloat16"
    seconds[32] = 40.0
    assert rates.fastest_product("float32", jax.devices()[0]).size == 16
