"""Programs as ONNX, by jax2onnx (extra `onnx`). The weights are in the model.

Each model is run once by onnxruntime: the converter does not always see that what it
made cannot be run.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from movq_jax.errors import UserError
from movq_jax.pretrained.exporting.programs import BATCH, Array, Program

CONVERTER, RUNTIME = "jax2onnx", "onnxruntime"
OPSET = 23


class ONNXModel(NamedTuple):
    """What was written."""

    batch: int | str  # images a call: `BATCH` for any number
    opset: int


def check_installed() -> None:
    """Raises UserError where the converter or what tries its models is missing."""
    for name in (CONVERTER, RUNTIME):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"ONNX models are made by {CONVERTER} and tried by {RUNTIME}, and "
                f'{name} is not installed: pip install "movq_jax[onnx]"'
            )


def converter_version() -> str:
    """The version of the converter, for the record."""
    return importlib.metadata.version(CONVERTER)


def write_onnx(program: Program, path: Path) -> ONNXModel:
    """Writes a program as an ONNX model, for any number of images where that works.

    Otherwise it is for one image a call: where the distances to all codes are so many
    that the search goes in chunks, and with quantizers whose decoding jax2onnx does not
    convert for a number that it does not know.

    Args:
      program: of `tokenizer_programs(..., one_by_one=False)`.
      path: of the model; weights above 2 GB go into files of that name beside it.

    Raises:
      UserError: the converter is not installed, or fails.
    """
    check_installed()
    # Only now: it is optional, and slow to import.
    from jax2onnx import to_onnx

    # NumPy's arrays cannot be indexed by those that are traced.
    weights = {name: jnp.asarray(array) for name, array in program.weights.items()}
    failure: Exception | None = None
    for batch in _batches():
        try:
            # What the converter puts in the place of layers promotes ranks.
            with jax.numpy_rank_promotion("allow"):
                to_onnx(
                    lambda *arrays: program.function(weights, *arrays),
                    [_spec(array, batch) for array in program.inputs],
                    model_name=program.name,
                    opset=OPSET,
                    input_names=[array.name for array in program.inputs],
                    output_names=[program.output.name],
                    return_mode="file",
                    output_path=str(path),
                )
            _try(program, path, 1 if batch == 1 else 3)
            return ONNXModel(1 if batch == 1 else BATCH, OPSET)
        except OSError:
            raise
        except Exception as error:  # of many kinds, by whichever part cannot go on
            failure = error
    raise UserError(
        f"{CONVERTER} {converter_version()} cannot convert the {program.name}: "
        f"{failure}; export it as StableHLO"
    ) from failure


def _try(program: Program, path: Path, count: int) -> None:
    """Runs the model for `count` images of zeros."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    zeros = {
        array.name: np.zeros(_sides(array, count), array.dtype)
        for array in program.inputs
    }
    (found,) = session.run(None, zeros)
    wanted = program.output
    if found.shape != _sides(wanted, count) or found.dtype != wanted.dtype:
        raise ValueError(f"what was made gives {found.dtype} {list(found.shape)}")


def _batches() -> Iterator[Any]:
    """The numbers of images to try: any number, then one."""
    # How the codes are searched depends on the number of images: as for two, which is
    # right for more of them, with more memory. ONNX knows no such bounds.
    yield export.symbolic_shape(BATCH, constraints=[f"{BATCH} <= 2"])[0]
    yield 1


def _spec(array: Array, batch: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(_sides(array, batch), np.dtype(array.dtype))


def _sides(array: Array, batch: Any) -> tuple[Any, ...]:
    return tuple(batch if side == BATCH else side for side in array.shape)
