"""The search for the nearest code, in float32 whatever the model's dtype."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Distances of more bytes than this are not held at once: codes go by in chunks.
CHUNK_BYTES = 256 * 2**20
MIN_CHUNK = 512


def nearest_code(
    z: Float[Array, "N D"], codebook: Float[Array, "K D"], chunk: int | None = None
) -> Int[Array, " N"]:
    """The index of the code with the smallest Euclidean distance; ties: the lowest.

    Runs in float32 with `precision='highest'`: the default of an accelerator (TF32,
    or bfloat16 passes) changes up to 1.5 % of the indices. |z|² is the same for all
    codes and is left out.

    The codes, not the rows, are cut into chunks, so that rows which lie on several
    devices stay there.

    Args:
      chunk: codes at a time; chosen from the size when not given.
    """
    z = z.astype(jnp.float32)
    codebook = codebook.astype(jnp.float32)
    if chunk is None:
        chunk = chunk_size(z.shape[0], codebook.shape[0])
    if chunk >= codebook.shape[0]:
        return jnp.argmin(_distances(z, codebook), axis=-1).astype(jnp.int32)
    return _search_in_chunks(z, codebook, chunk)


def chunk_size(rows: int, codes: int) -> int:
    """How many of the codes to compare at once with all rows, for bounded memory."""
    if 4 * rows * codes <= CHUNK_BYTES:
        return codes
    return max(MIN_CHUNK, CHUNK_BYTES // (4 * rows))


def _distances(
    z: Float[Array, "N D"], codes: Float[Array, "k D"]
) -> Float[Array, "N k"]:
    """|z - e|² - |z|²."""
    product = jnp.einsum("nd,kd->nk", z, codes, precision="highest")
    return jnp.sum(jnp.square(codes), axis=-1)[None, :] - 2 * product


def _search_in_chunks(z: jax.Array, codebook: jax.Array, chunk: int) -> jax.Array:
    codes, depth = codebook.shape
    padding = -codes % chunk
    chunks = jnp.pad(codebook, ((0, padding), (0, 0))).reshape(-1, chunk, depth)
    starts = jnp.arange(chunks.shape[0]) * chunk

    def step(best, part):
        best_distance, best_id = best
        part_codes, start = part
        ids = start + jnp.arange(chunk)
        distances = jnp.where(ids < codes, _distances(z, part_codes), jnp.inf)
        local = jnp.argmin(distances, axis=-1)
        distance = jnp.take_along_axis(distances, local[:, None], axis=-1)[:, 0]
        closer = distance < best_distance  # strictly: the lowest index wins a tie
        return (
            jnp.where(closer, distance, best_distance),
            jnp.where(closer, start + local, best_id),
        ), None

    start = (jnp.full(z.shape[0], jnp.inf), jnp.zeros(z.shape[0], starts.dtype))
    (_, ids), _ = jax.lax.scan(step, start, (chunks, starts))
    return ids.astype(jnp.int32)
