"""A folder with an exported model: its programs, and `export.json` that tells of them.

    encoder.stablehlo  encoder.safetensors   images -> indices, and its weights
    decoder.stablehlo  decoder.safetensors   indices -> images
    sampler.stablehlo  sampler.safetensors   seed, numbers, labels -> indices
    encoder.onnx  decoder.onnx               with their weights inside

Programs for several sizes are called `encoder-256x512.stablehlo`, height by width, and
share their weights. How to call them: `movq_jax.pretrained.exporting.stablehlo`.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import safetensors.numpy

import movq_jax
from movq_jax.atomic import check_folder_to_replace, own_name
from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle
from movq_jax.pretrained.exporting import onnx_models
from movq_jax.pretrained.exporting.programs import (
    Array,
    Program,
    sample_options,
    sampler_program,
    tokenizer_programs,
)
from movq_jax.pretrained.exporting.stablehlo import PLATFORMS, to_stablehlo
from movq_jax.pretrained.formats.diffusers import write_diffusers
from movq_jax.pretrained.prior_bundle import PriorBundle

RECORD_FILE = "export.json"
FORMAT_VERSION = 1

Sizes = Sequence[tuple[int, int]]


def export_stablehlo(
    model: Bundle | PriorBundle,
    out: Path,
    *,
    image_sizes: Sizes = (),
    pixels: str = "uint8",
    platforms: Sequence[str] = PLATFORMS,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a tokenizer's encoder and decoder, or a prior's sampler and decoder.

    Args:
      model: as it was read.
      out: the folder; one that an export made is replaced.
      image_sizes: (height, width) each, for a tokenizer.
      pixels: see `tokenizer_programs`.
      platforms: that the programs are to run on.
      options: of a prior, see `sampler_program`.

    Returns:
      the record, as in `export.json`.

    Raises:
      UserError: a size, an option or a platform does not fit, or `out` cannot be
        written.
    """
    if isinstance(model, PriorBundle):
        programs = _prior_programs(model, pixels, options)
    else:
        programs = _of_all_sizes(model, image_sizes, pixels, one_by_one=True)
    several = len({program.image_size for program in programs}) > 1

    def write(folder: Path) -> dict[str, Any]:
        records, used = [], {}
        for program in programs:
            made = to_stablehlo(program, platforms, used.get(program.name))
            used[program.name] = made.weights
            name = _file_name(program, several)
            (folder / f"{name}.stablehlo").write_bytes(made.data)
            weights = folder / f"{program.name}.safetensors"
            if not weights.exists():
                arrays = {key: program.weights[key] for key in made.weights}
                safetensors.numpy.save_file(arrays, weights)
            records.append(
                {
                    **_described(program, f"{name}.stablehlo"),
                    "weights": weights.name,
                    "platforms": list(made.platforms),
                    "calling_convention_version": made.calling_convention_version,
                }
            )
        return {"jax": jax.__version__, "programs": records}

    drawing = {}
    if isinstance(model, PriorBundle):
        drawing["sample"] = sample_options(model.prior, options)
    return _write(model, out, "stablehlo", write, **drawing)


def export_onnx(
    model: Bundle, out: Path, *, image_sizes: Sizes, pixels: str = "uint8"
) -> dict[str, Any]:
    """Writes a tokenizer's encoder and decoder as ONNX models.

    Args and the rest as `export_stablehlo`.
    """
    onnx_models.check_installed()
    programs = _of_all_sizes(model, image_sizes, pixels, one_by_one=False)

    def write(folder: Path) -> dict[str, Any]:
        records = []
        for program in programs:
            name = f"{_file_name(program, len(image_sizes) > 1)}.onnx"
            made = onnx_models.write_onnx(program, folder / name)
            described = _described(program, name)
            records.append({**described, "batch": made.batch, "opset": made.opset})
        return {
            "jax": jax.__version__,
            onnx_models.CONVERTER: onnx_models.converter_version(),
            "programs": records,
        }

    return _write(model, out, "onnx", write)


def export_diffusers(model: Bundle, out: Path) -> dict[str, Any]:
    """Writes a tokenizer as diffusers' `VQModel.from_pretrained(out)` reads it.

    Raises:
      UserError: no `VQModel` can hold the model, or `out` cannot be written.
    """

    def write(folder: Path) -> dict[str, Any]:
        write_diffusers(model, folder)
        return {"files": sorted(path.name for path in folder.iterdir())}

    return _write(model, out, "diffusers", write)


def check_out(out: Path) -> None:
    """Finds out, before long work, whether an export can be written to `out`.

    Raises:
      UserError: it cannot, or what is there is no export.
    """
    check_folder_to_replace(out)
    if out.exists() and any(out.iterdir()) and not (out / RECORD_FILE).is_file():
        raise UserError(
            f"{out} has files, but no {RECORD_FILE}, so it is no export that could be "
            "replaced: name a new folder"
        )


def _write(
    model: Bundle | PriorBundle,
    out: Path,
    name: str,
    write: Callable[[Path], dict[str, Any]],
    **told: Any,
) -> dict[str, Any]:
    """Calls `write` with a folder beside `out`, which takes its place when it is whole.

    A writer that is killed leaves `out` as it was, or, between the two moves, nothing.
    """
    check_out(out)
    out = out.resolve()  # what a link points to, and not the link
    fresh, stale = (out.parent / f".{own_name()}.{age}" for age in ("tmp", "old"))
    try:
        fresh.mkdir(parents=True)
        record = {
            "format_version": FORMAT_VERSION,
            "format": name,
            "movq_jax": movq_jax.__version__,
            **_identity(model),
            **told,
            **write(fresh),
        }
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        (fresh / RECORD_FILE).write_text(text)
        if out.exists():
            out.rename(stale)
        fresh.rename(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write the export {out}: {reason}") from error
    finally:
        for folder in (fresh, stale):
            shutil.rmtree(folder, ignore_errors=True)
    return record


def _identity(model: Bundle | PriorBundle) -> dict[str, Any]:
    """Which model it is, as the record tells."""
    prior, tokenizer = model if isinstance(model, PriorBundle) else (None, model)
    module = build_tokenizer(tokenizer.model)
    told = {
        "kind": "prior" if prior else "tokenizer",
        "fingerprint": (prior or tokenizer).fingerprint,
        "factor": module.factor,
        "codebook_sizes": list(module.codebook_sizes),
    }
    if prior:
        told["tokenizer"] = tokenizer.fingerprint
        told["classes"] = list(prior.protocol["classes"])
    return told


def _of_all_sizes(
    bundle: Bundle, sizes: Sizes, pixels: str, *, one_by_one: bool
) -> list[Program]:
    if not sizes:
        raise UserError("no size of images is given to export the tokenizer for")
    found = []
    for size in dict.fromkeys(sizes):
        found += tokenizer_programs(bundle, size, pixels, one_by_one=one_by_one)
    return found


def _prior_programs(
    model: PriorBundle, pixels: str, options: Mapping[str, Any] | None
) -> list[Program]:
    factor = build_tokenizer(model.tokenizer.model).factor
    sampler = sampler_program(model.prior, factor, options)
    _, decoder = tokenizer_programs(model.tokenizer, sampler.image_size, pixels)
    return [sampler, decoder]


def _file_name(program: Program, several: bool) -> str:
    height, width = program.image_size
    return f"{program.name}-{height}x{width}" if several else program.name


def _described(program: Program, file: str) -> dict[str, Any]:
    return {
        "name": program.name,
        "file": file,
        "image_size": list(program.image_size),
        "inputs": [_as_record(array) for array in program.inputs],
        "output": _as_record(program.output),
    }


def _as_record(array: Array) -> dict[str, Any]:
    return {**array._asdict(), "shape": list(array.shape)}
