"""Programs as StableHLO, by `jax.export`: for another process with jax, now or later.

The weights lie beside the program and are its first argument: programs for several
sizes share them, and the compiler has no constants of that size to fold. The encoder
and decoder of 68M parameters at 256² are 0.1 and 0.2 MB, their weights 110 and 162 MB.
To use them, without movq_jax:

    import jax, safetensors.numpy
    with open("encoder.stablehlo", "rb") as file:
        encoder = jax.export.deserialize(file.read())
    weights = safetensors.numpy.load_file("encoder.safetensors")
    ids = jax.jit(encoder.call)(weights, images)

What jax promises: a program can be read for half a year by newer releases of jax.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from movq_jax.errors import UserError
from movq_jax.pretrained.exporting.programs import BATCH, Array, Program

PLATFORMS = ("cpu", "cuda", "tpu")


class StableHLO(NamedTuple):
    """An exported program."""

    data: bytes  # for `jax.export.deserialize`
    weights: tuple[str, ...]  # the names of those that it uses
    platforms: tuple[str, ...]
    calling_convention_version: int


def to_stablehlo(
    program: Program,
    platforms: Sequence[str] = PLATFORMS,
    names: Sequence[str] | None = None,
) -> StableHLO:
    """Lowers a program for any number of images, on all `platforms`.

    Height and width are not left open: how attention is cut into blocks depends on
    them, and jax does not decide that of sizes that it does not know.

    Args:
      program: what to export.
      platforms: of `PLATFORMS`, or 'rocm'.
      names: of the weights that it uses, where that is known from another size.

    Raises:
      UserError: it cannot be lowered for one of them.
    """
    names = tuple(names or _used(program))
    shapes = _shapes(program.weights)
    # Flax asks for all of a module's weights, also those that are never read.
    unused = {name: shape for name, shape in shapes.items() if name not in names}

    def run(weights: Mapping[str, jax.Array], *arrays: jax.Array) -> jax.Array:
        rest = {name: jnp.zeros(s.shape, s.dtype) for name, s in unused.items()}
        return program.function({**weights, **rest}, *arrays)

    (batch,) = export.symbolic_shape(BATCH)
    weights = {name: shapes[name] for name in names}
    try:
        exported = export.export(jax.jit(run), platforms=tuple(platforms))(
            weights, *(_with_batch(array, batch) for array in program.inputs)
        )
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"the {program.name} cannot be exported for {', '.join(platforms)}: "
            f"{error}; name fewer --platforms"
        ) from error
    return StableHLO(
        data=bytes(exported.serialize()),
        weights=names,
        platforms=exported.platforms,
        calling_convention_version=exported.calling_convention_version,
    )


def _used(program: Program) -> tuple[str, ...]:
    """The names of the weights that the program reads, sorted.

    Only with sizes that are all known does jax leave out what is not used.
    """
    arrays = (_with_batch(array, 1) for array in program.inputs)
    kept = export.export(jax.jit(program.function))(
        _shapes(program.weights), *arrays
    ).module_kept_var_idx
    names = sorted(program.weights)  # in the order of a dict's leaves
    return tuple(names[number] for number in kept if number < len(names))


def _shapes(weights: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in weights.items()
    }


def _with_batch(array: Array, batch: object) -> jax.ShapeDtypeStruct:
    shape = tuple(batch if side == BATCH else side for side in array.shape)
    return jax.ShapeDtypeStruct(shape, np.dtype(array.dtype))
