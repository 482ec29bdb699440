"""A codebook: rows that are learned, and how they become the codes in effect."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from movq_jax.fields import check_choice, check_size
from movq_jax.models.layers import symmetric_uniform, torch_kernel
from movq_jax.models.quantizers.base import WHERE, normalised
from movq_jax.models.quantizers.search import nearest_code


def uniform_codebook(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """U(-1/K, 1/K) for K = shape[0], the initialisation of VQ-VAE and VQGAN."""
    return jax.random.uniform(key, shape, minval=-1 / shape[0], maxval=1 / shape[0])


def _narrow_normal(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """A normal draw of standard deviation d^-0.5, d = shape[1]: SimVQ's code."""
    return shape[1] ** -0.5 * jax.random.normal(key, shape)


def _on_the_sphere(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Uniform in the cube, then of length 1, as LlamaGen's code has it."""
    return normalised(jax.random.uniform(key, shape, minval=-1.0, maxval=1.0))


# form -> how rows start.
FORMS = {
    "plain": uniform_codebook,
    "l2": _on_the_sphere,
    "linear": _narrow_normal,
}


class Codebook(nn.Module):
    """K rows [K, d], and the codes that they stand for.

    Attributes:
      size: K.
      dim: d.
      form: how rows become codes.
        'plain': they are the codes.
        'l2': rows and features are normalised to length 1, in search, loss and result
          (ViT-VQGAN, 2110.04627, as in LlamaGen's code, which has d = 8, K = 16384).
        'linear': one linear map of d x d takes all rows to codes; the rows are never
          trained, the map is (SimVQ, 2411.02038). All codes move together.
    """

    size: int
    dim: int
    form: str = "plain"

    def __post_init__(self):
        check_size(f"{WHERE}.codebook_size", self.size, least=2)
        check_size(f"{WHERE}.dim", self.dim)
        check_choice(f"{WHERE}.form", self.form, FORMS)
        super().__post_init__()

    def setup(self):
        self.rows = self.param("rows", FORMS[self.form], (self.size, self.dim))
        if self.form == "linear":
            self.map = nn.Dense(
                self.dim,
                kernel_init=torch_kernel,
                bias_init=symmetric_uniform(self.dim**-0.5),
                precision="highest",
            )

    def __call__(self, *, train: bool = False) -> Float[Array, "K d"]:
        """The codes in effect, float32."""
        del train
        if self.has_variable("cache", "codes"):
            return self.get_variable("cache", "codes")
        if self.form == "linear":
            return self.map(jax.lax.stop_gradient(self.rows))
        return normalised(self.rows) if self.form == "l2" else self.rows

    def features(self, z: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
        """What is compared with the codes, float32."""
        z = z.astype(jnp.float32)
        return normalised(z) if self.form == "l2" else z


def look_up(
    features: Float[Array, "*rows d"], codes: Float[Array, "K d"]
) -> tuple[jax.Array, jax.Array]:
    """The nearest codes: ids [*rows] int32 and codes [*rows, d]."""
    flat = jax.lax.stop_gradient(features).reshape(-1, features.shape[-1])
    ids = nearest_code(flat, jax.lax.stop_gradient(codes))
    ids = ids.reshape(features.shape[:-1])
    return ids, codes[ids]
