"""Weights that others published become a model of this project.

    movq convert --from=movqgan_67M.ckpt --out=models/movqgan-67m
    movq convert --from=kandinsky-2-2-decoder/movq --out=models/kandinsky
    movq convert --from=tokenizer_imagenet256_checkpoint --out=models/maskgit-vqgan
    movq convert --from=maskgit_imagenet256_checkpoint --out=models/maskgit \\
        --tokenizer=models/maskgit-vqgan

Known are VQGAN-style files (taming-transformers, SBER-MoVQGAN, Kandinsky), diffusers'
VQModel, Dual Codebook VQ of its authors, and MaskGIT's tokenizer and transformer;
.safetensors, what torch saved, and flax's msgpack. Nothing in a file is executed. Each
tensor finds its place, or the command fails and names those that do not; what a
training kept besides (its losses, the weights without averaging) is left out, and said.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import movq_jax
from movq_jax.tools import command


def main(argv: Sequence[str] | None = None) -> None:
    """Convert what the flags name; print or write what it became.

    Raises:
        UserError: it cannot be read or is of no known format, or the place cannot be
            written.
    """
    args = _parser().parse_args(argv)
    # Only now: jax takes a second to import, which --help need not wait for.
    from movq_jax.pretrained import converting

    converting.check_out(args.out)
    if args.tokenizer is not None:
        from movq_jax.pretrained.bundle import find_bundle

        find_bundle(args.tokenizer)  # before the long work
    conversion = converting.convert(getattr(args, "from"))
    fingerprint = converting.write_converted(conversion, args.out, args.tokenizer)
    record = _record(args, conversion, fingerprint)
    print("\n".join(_lines(record)), file=command.human_stream(args.json))
    command.emit_json(record, args.json)


def _record(
    args: argparse.Namespace, conversion: Any, fingerprint: str
) -> dict[str, Any]:
    import jax

    leaves = jax.tree.leaves(conversion.params)
    return {
        "tool": "convert",
        "version": movq_jax.__version__,
        "source": conversion.source,
        "format": conversion.format,
        "kind": conversion.kind,
        "model": {"path": args.out, "fingerprint": fingerprint},
        "tensors": len(leaves),
        "parameters": sum(leaf.size for leaf in leaves),
        **_sizes(conversion),
    }


def _sizes(conversion: Any) -> dict[str, Any]:
    if conversion.kind == "prior":
        tokens, prior = conversion.model["tokens"], conversion.model["prior"]
        return {
            "grid": tokens["grid"],
            "codebook_sizes": tokens["codebook_sizes"],
            "classes": prior["num_classes"],
        }
    from movq_jax.models.tokenizer import build_tokenizer

    module = build_tokenizer(conversion.model)
    return {
        "factor": module.factor,
        "codebook_sizes": module.codebook_sizes,
        "bits_per_position": module.bits_per_position,
    }


def _lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    from movq_jax.pretrained.formats.detecting import FORMATS

    source = record["source"]
    part = f", {source['part']}" if source["part"] else ""
    yield f"{source['file']}: {FORMATS[record['format']]}{part}"
    yield f"  SHA-256 {source['sha256']}"
    yield (
        f"  a {record['kind']} of {record['parameters']:,} numbers in "
        f"{record['tensors']:,} tensors"
    )
    books = " x ".join(f"{size:,}" for size in record["codebook_sizes"])
    if record["kind"] == "prior":
        height, width = record["grid"]
        yield f"  {height}x{width} indices of {books}; {record['classes']:,} classes"
    else:
        factor = record["factor"]
        yield (
            f"  {factor}x{factor} pixels a position, codebook {books}, "
            f"{record['bits_per_position']:g} bits a position"
        )
    for name, why in source["skipped"].items():
        yield f"  left out: {name} ({why})"
    model = record["model"]
    yield f"wrote {model['path']}, fingerprint {model['fingerprint']}"


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq convert", description=__doc__)
    parser.add_argument(
        "--from",
        required=True,
        metavar="FILE_OR_DIR",
        help="a file of weights, or the folder with it (and with diffusers' "
        "config.json)",
    )
    parser.add_argument(
        "--out",
        "--output",
        required=True,
        metavar="DIR",
        help="the model's folder: a new one, or an older conversion's",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="of a prior: the model of its tokenizer, which is converted before",
    )
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
