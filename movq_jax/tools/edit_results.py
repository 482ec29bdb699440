"""What `movq edit` writes: the pictures, the overview's panels and the record."""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import movq_jax
from movq_jax.tools import sampling_flags
from movq_jax.tools.edit_work import Edited, Editor, Panel, Variant
from movq_jax.tools.feeding import Refusals
from movq_jax.tools.files import InputFile, write_png


def variants_of(args: argparse.Namespace, prior: Any) -> list[Variant]:
    """Return the results of each picture: `--num` of each class, or without one.

    Raises:
        UserError: the prior has no such class, or none at all.
    """
    kinds = [(f"{args.steps} steps" if args.edit == "reconstruct" else "result", "")]
    labels: list[int | None] = [None]
    if args.classes is not None:
        labels = sampling_flags.classes(prior, args.classes)
        names = prior.classes or [f"class {n}" for n in range(prior.num_classes)]
        stems = _stems([names[label] for label in labels], labels)
        kinds = [(names[n], f"{stem}-") for n, stem in zip(labels, stems, strict=True)]
    return [
        Variant(f"{title} ({n})" if args.num > 1 else title, f"{stem}{n}", label)
        for (title, stem), label in zip(kinds, labels, strict=True)
        for n in range(1, args.num + 1)
    ]


def _stems(names: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Return names of classes as parts of files' names, no two alike."""
    stems = [re.sub(r"[^\w.-]+", "_", name.casefold()) for name in names]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{label}"
        for stem, label in zip(stems, labels, strict=True)
    ]


def outputs_of(
    args: argparse.Namespace,
    output: Path,
    files: Sequence[InputFile],
    variants: Sequence[Variant],
) -> Iterator[Path]:
    """Yield all PNGs that the command may write."""
    yield output / "overview.png"
    stems = [variant.stem for variant in variants]
    stems += ["kept", "top1"] if args.edit == "reconstruct" else []
    for file in files:
        yield from (_place(output, file, stem) for stem in stems)


def save(
    output: Path, file: InputFile, variants: Sequence[Variant], result: Edited
) -> None:
    """Write the results of a picture."""
    for variant, image in zip(variants, result.results, strict=True):
        write_png(_place(output, file, variant.stem), image)
    for stem, image in result.extra.items():
        write_png(_place(output, file, stem), image)


def panels_of(variants: Sequence[Variant], result: Edited) -> list[Panel]:
    """Return what the overview shows of a picture."""
    captions = result.captions or [""] * len(variants)
    results = zip(variants, result.results, captions, strict=True)
    return [
        *result.panels,
        *((variant.title, image, caption) for variant, image, caption in results),
    ]


def picture_record(
    file: InputFile,
    image: np.ndarray,
    variants: Sequence[Variant],
    result: Edited,
    output: Path,
) -> dict[str, Any]:
    """Return what became of a picture, for the JSON record."""
    height, width = image.shape[:2]
    return {
        "file": file.path,
        "name": file.name,
        "height": height,
        "width": width,
        "tokens": result.tokens,
        "tokens_drawn": result.unknown,
        "windows": result.windows,
        "results": [
            {
                "file": _place(output, file, variant.stem),
                "label": variant.label,
                "height": made.shape[0],
                "width": made.shape[1],
            }
            for variant, made in zip(variants, result.results, strict=True)
        ],
    }


def make_record(
    args: argparse.Namespace,
    editor: Editor,
    done: list[dict[str, Any]],
    refusals: Refusals,
) -> dict[str, Any]:
    """Return the record of the whole run."""
    own = {
        "inpaint": ("mask", "box", "blend", "margin"),
        "outpaint": ("left", "right", "top", "bottom", "blend", "margin"),
        "variations": ("keep",),
        "reconstruct": ("keep",),
    }[args.edit]
    prior = editor.prior
    return {
        "tool": "edit",
        "version": movq_jax.__version__,
        "edit": args.edit,
        "model": {
            "path": args.model,
            "fingerprint": prior.fingerprint,
            "tokenizer": prior.tokenizer.fingerprint,
        },
        "settings": {name: getattr(args, name) for name in own},
        "seed": args.seed,
        "options": editor.options,
        "micro_batch": prior.micro_batch,
        "classes": args.classes,
        "num": args.num,
        "window": list(prior.grid),
        "pictures": done,
        "refused": refusals.as_records(),
    }


def _place(output: Path, file: InputFile, stem: str) -> Path:
    return output / "results" / file.name / f"{stem}.png"
