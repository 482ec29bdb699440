"""Frozen networks whose activations say how alike two images look.

Members of `PERCEPTUAL` are Linen modules with a field `dtype`, that of their
convolutions, and the methods

- `features(x)`: images [B, H, W, 3] in [-1, 1] -> a tuple of maps in `dtype`
- `distance(fx, fy)`: of two such tuples -> [B] float32
- `__call__(x, x_hat)`: both in one -> [B] float32, 0 for equal images

and the attribute `min_side`, below which an image has no last map.
"""

from movq_jax.models.features.lpips import LPIPSVGG, LPIPSAlex
from movq_jax.models.features.squeezenet import SqueezeNetPerceptual

PERCEPTUAL = {
    "lpips_vgg": LPIPSVGG,
    "lpips_alex": LPIPSAlex,
    "squeezenet": SqueezeNetPerceptual,
}
