"""Discrete image tokenizers and the generative models over them, in JAX and Flax.

import movq_jax
tok = movq_jax.load("runs/a")
ids = tok.encode(images)   # uint8 [B, H, W, 3] -> int32 [B, h, w, M]
x = tok.decode(ids)        # uint8 [B, H, W, 3]
prior = movq_jax.load("runs/b")
new = prior.tokenizer.decode(prior.sample(16))
"""

from movq_jax._version import __version__

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    # Imported on first use, so that `movq --help` need not wait for jax.
    if name == "load":
        from movq_jax.pretrained.loading import load

        return load
    raise AttributeError(f"module 'movq_jax' has no attribute {name!r}")
