"""A model for programs without this package: StableHLO, ONNX, diffusers.

    movq export --model=runs/a --out=exported --image-size=256,512
    movq export --model=runs/prior --out=exported --steps=8
    movq export --model=runs/a --out=exported --format=onnx
    movq export --model=runs/a --out=exported --format=diffusers

StableHLO is for any process that has jax, on the CPU, a GPU or a TPU: a tokenizer
becomes an encoder and a decoder, a prior a sampler and its tokenizer's decoder, each
for one size of images and any number of them. The options to draw with are part of the
sampler. ONNX and diffusers hold tokenizers alone; ONNX needs the extra `onnx`.

`export.json` in the folder says what each program takes and gives, and what made it.
The weights lie beside the programs, and are their first argument:

    import jax, safetensors.numpy
    with open("exported/encoder.stablehlo", "rb") as file:
        encoder = jax.jit(jax.export.deserialize(file.read()).call)
    weights = safetensors.numpy.load_file("exported/encoder.safetensors")
    ids = encoder(weights, images)
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from movq_jax.errors import UserError
from movq_jax.tools import command, sampling_flags

FORMATS = ("stablehlo", "onnx", "diffusers")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
PIXELS = ("uint8", "float32")
_DEFAULT_IMAGE_SIZE = 256


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag is wrong or does not fit the model or the format, or the
            folder cannot be written.
    """
    args = _parser().parse_args(argv)
    out = Path(args.out).expanduser()
    # Only now: jax takes a second to import, which --help need not wait for.
    from movq_jax.pretrained.bundle import read_bundle
    from movq_jax.pretrained.exporting import folder

    folder.check_out(out)
    model = read_bundle(args.model)
    _check_flags(args, model.kind)
    if args.format == "diffusers":
        record = folder.export_diffusers(model, out)
    elif model.kind == "prior":
        record = _export_prior(args, out)
    else:
        sizes = args.image_size or [_own_size(model)]
        common = {"image_sizes": sizes, "pixels": args.pixels or PIXELS[0]}
        if args.format == "onnx":
            record = folder.export_onnx(model, out, **common)
        else:
            platforms = args.platforms or _default_platforms()
            record = folder.export_stablehlo(model, out, platforms=platforms, **common)
    command.emit_json(
        {"tool": "export", "model": args.model, "output": args.out, **record}, args.json
    )
    for line in _lines(record, out):
        print(line, file=command.human_stream(args.json))


def _export_prior(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    import movq_jax
    from movq_jax.pretrained.exporting import folder
    from movq_jax.pretrained.prior_bundle import read_prior_bundle

    options = sampling_flags.options(args)
    prior = movq_jax.load(args.model)
    sampling_flags.check_options(prior, options)
    return folder.export_stablehlo(
        read_prior_bundle(args.model),
        out,
        pixels=args.pixels or PIXELS[0],
        platforms=args.platforms or _default_platforms(),
        options=options,
    )


def _default_platforms() -> Sequence[str]:
    from movq_jax.pretrained.exporting import stablehlo

    return stablehlo.PLATFORMS


def _check_flags(args: argparse.Namespace, kind: str) -> None:
    """Refuse flags that the model or the format has no use for."""
    if kind not in ("tokenizer", "prior"):
        raise UserError(
            f"the model in {args.model} is a {kind}, neither a tokenizer nor a prior"
        )
    if kind == "prior" and args.format != "stablehlo":
        raise UserError(
            f"--format={args.format} holds a tokenizer, and the model in {args.model} "
            "is a prior: give the folder model/tokenizer in it, or --format=stablehlo"
        )
    drawing = sampling_flags.options(args)
    if kind == "tokenizer" and drawing:
        name = sampling_flags.flag(next(iter(drawing)))
        raise UserError(
            f"{name} is for priors, and the model in {args.model} is a tokenizer, "
            "which draws nothing: leave it out"
        )
    if kind == "prior" and args.image_size:
        raise UserError(
            f"the model in {args.model} is a prior, which draws images of one size: "
            "leave out --image-size"
        )
    if args.platforms and args.format != "stablehlo":
        raise UserError(f"--platforms has no meaning with --format={args.format}")
    for name in ("image_size", "pixels"):
        if args.format == "diffusers" and getattr(args, name):
            raise UserError(
                f"{sampling_flags.flag(name)} has no meaning with --format=diffusers, "
                "which holds weights and no program"
            )


def _own_size(bundle: Any) -> tuple[int, int]:
    """Return the size that the model was evaluated at, else one near 256."""
    from movq_jax.models.tokenizer import build_tokenizer

    factor = build_tokenizer(bundle.model).factor
    evaluated = (bundle.protocol.get("eval") or {}).get("image_size")
    side = evaluated or -(-_DEFAULT_IMAGE_SIZE // factor) * factor
    return side, side


def _lines(record: dict[str, Any], out: Path) -> list[str]:
    """Return what people read of the record."""
    if "programs" not in record:
        return [f"wrote {out}: {', '.join(record['files'])}"]
    lines = [f"wrote {out}:"]
    for program in record["programs"]:
        size = (out / program["file"]).stat().st_size / 1e6
        line = f"  {program['file']} ({size:,.1f} MB)"
        if "weights" in program:
            weights = (out / program["weights"]).stat().st_size / 1e6
            line += f" with {program['weights']} ({weights:,.1f} MB)"
        arrays = ", ".join(map(_said, program["inputs"]))
        lines.append(f"{line}: {arrays} -> {_said(program['output'])}")
        if program.get("batch") == 1:
            lines.append("    for one image a call: jax2onnx cannot leave that open")
    return lines


def _said(array: dict[str, Any]) -> str:
    shape = ", ".join(map(str, array["shape"]))
    return f"{array['name']} {array['dtype']} [{shape}]"


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq export", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="a run's folder, or the model folder in it"
    )
    parser.add_argument("--out", required=True, help="the folder to write")
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="(default: %(default)s)"
    )
    parser.add_argument(
        "--image-size",
        type=_sizes,
        metavar="SIZES",
        help="of a tokenizer: 256, or HEIGHTxWIDTH, or several: 256,512x768 (default: "
        "as the model was evaluated, else 256)",
    )
    parser.add_argument(
        "--pixels",
        choices=PIXELS,
        help="how images go in and come out: 0 to 255 (default), or -1 to 1",
    )
    parser.add_argument(
        "--platforms",
        type=_platforms,
        metavar="NAMES",
        help=f"of {', '.join(PLATFORMS)}, for StableHLO (default: cpu,cuda,tpu)",
    )
    sampling_flags.add_option_flags(parser)
    command.add_json_flag(parser)
    return parser


def _sizes(text: str) -> list[tuple[int, int]]:
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", part.strip())
        if not match:
            raise argparse.ArgumentTypeError(
                f"{part!r} is no size: give 256, or 256x512 for height x width"
            )
        sizes.append((int(match[1]), int(match[2] or match[1])))
    return sizes


def _platforms(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in PLATFORMS:
            known = ", ".join(PLATFORMS)
            hint = command.did_you_mean(name, PLATFORMS)
            raise argparse.ArgumentTypeError(
                f"{name!r} is no platform{hint}: use some of {known}"
            )
    return names


if __name__ == "__main__":
    sys.exit(command.run(main))
