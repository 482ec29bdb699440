"""What a device can do at best: the rate that is measured, and its datasheet's."""

import re
import statistics
from typing import Any

import jax
import jax.numpy as jnp

from movq_jax.measuring.timing import Limits, time_steps

# Dense (without sparsity) 10^12 FLOP/s of bfloat16 matrix products, summed in float32,
# from the makers' datasheets, by what jax calls the device. The first that fits counts.
DATASHEET_BF16 = {
    r"GB200": 2500,
    r"B200": 2250,
    r"H200|H100.*HBM3|GH200": 989.4,
    r"H100 NVL": 835.5,
    r"H100 PCIe": 756,
    r"A100": 312,
    r"A10G": 70,
    r"A10\b": 125,
    r"L40S": 362,
    r"L40\b": 181,
    r"L4\b": 121,
    r"RTX 4090": 165.2,
    r"RTX 3090": 71,
    r"TPU (v6 lite|v6e)": 918,
    r"TPU (v5 lite|v5e)": 197,
    r"TPU v5": 459,
    r"TPU v4 lite": 138,
    r"TPU v4": 275,
}
# Turing and Volta have no bfloat16: of float16, for comparison.
DATASHEET_FP16 = {r"T4\b": 65, r"V100": 125}

_SIZES = {"cpu": (256, 512, 1024, 2048), "accelerator": (2048, 4096, 8192, 16384)}
_WARM_UP = Limits(seconds=0.2)
LEAST_SECONDS = 0.2  # of each turn of the products, however short those of programs are


def datasheet_peak(device_kind: str) -> float | None:
    """FLOP/s of half-precision matrix products; None: not known."""
    for pattern, peak in (DATASHEET_BF16 | DATASHEET_FP16).items():
        if re.search(pattern, device_kind):
            return peak * 1e12
    return None


class MatrixProduct:
    """Square matrix products of one size, to be timed beside the programs.

    Products run with the precision that the model's run with (jax's default: TF32 for
    float32 on recent GPUs), summed in float32.
    """

    def __init__(self, dtype: str, size: int, device: jax.Device) -> None:
        keys = jax.random.split(jax.random.key(0))
        self.size = size
        self._factors = [
            jax.device_put(jax.random.normal(key, (size, size), dtype), device)
            for key in keys
        ]
        self._product = jax.jit(jnp.matmul)

    @property
    def flops(self) -> int:
        """Of one step."""
        return 2 * self.size**3

    def run(self) -> Any:
        """Starts one product."""
        return self._product(*self._factors)


def fastest_product(dtype: str, device: jax.Device) -> MatrixProduct:
    """The product whose size gives the highest rate in a short try of several."""
    kind = "cpu" if device.platform == "cpu" else "accelerator"
    best, best_rate = None, 0.0
    for size in _SIZES[kind]:
        product = MatrixProduct(dtype, size, device)
        rate = product.flops / statistics.median(time_steps(product.run, _WARM_UP))
        if rate > best_rate:
            best, best_rate = product, rate
    return best
