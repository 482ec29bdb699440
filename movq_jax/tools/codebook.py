"""How the codes of a tokenizer are used, as one HTML report.

    movq codebook --model=runs/a --data=photos --output=report/
    movq codebook --model=runs/a --second-model=runs/b --data=pictures/ --num=500

writes `codebook.html`, which needs nothing beside it, its pictures as PNGs, and all
numbers as `codebook.json`: what each code looks like when it is decoded alone, how
often each one is chosen, dead codes, entropy, what two channels have in common,
distances between codes, and the best and the worst reconstructions. --data is a
dataset that `movq prepare` made, or image files, as `movq reconstruct` takes them.
With --second-model its reconstructions stand beside the model's.

Images go by one batch at a time; memory does not grow with their number. An image that
cannot be used is named and left out, and the exit code is 4. Needs matplotlib: the
extra `plots`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import movq_jax
from movq_jax.atomic import check_writable, write_text
from movq_jax.evaluation.codebooks.figures import check_plots
from movq_jax.evaluation.codebooks.report import Picture, make_html
from movq_jax.progress import Progress
from movq_jax.tools import command, image_data
from movq_jax.tools.codebook_pass import MOST_SHOWN, Findings, there_and_back
from movq_jax.tools.feeding import Refusals, load_tokenizer, too_large
from movq_jax.tools.files import output_folder, refuse_overwriting, write_png
from movq_jax.tools.image_data import ImageData

HTML, JSON = "codebook.html", "codebook.json"

Distances = Mapping[str, np.ndarray]  # book -> from each code to its neighbour


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag or a path is wrong, or matplotlib is not installed.
        InputsRefused: some images could not be used; the report has the others.
    """
    args = _parser().parse_args(argv)
    check_plots()
    output = output_folder(args.output)
    for name in (HTML, JSON):
        check_writable(output / name)
    data = image_data.find_images(args, output=output)
    tok = load_tokenizer(args.model, args.micro_batch)
    second = None
    if args.second_model is not None:
        second = load_tokenizer(args.second_model, args.micro_batch)
    # Only now: it imports jax, which --help need not wait for.
    from movq_jax.evaluation.codebooks.distances import neighbour_distances

    refuse_overwriting(_places(output, tok), inputs=data.files)
    # Files are taken as they are, as `movq reconstruct` does.
    size = args.image_size or (image_data.WHOLE if data.files else None)
    transform, preprocessing = image_data.make_transform(
        size, tok, image_data.run_config(args.model)
    )
    refusals = Refusals(total=len(data))
    found = Findings(tok, num_models=1 + (second is not None))
    with Progress(len(data), "images") as progress:
        images = data.images(
            transform, max_side=args.max_side, refusals=refusals, progress=progress
        )
        refuse = refusals.of(data.paths, progress)
        for result in there_and_back(tok, second, images, refuse=refuse):
            try:
                found.add(*result)
            except MemoryError:
                number, original, *_ = result
                refuse(number, too_large(original.shape[:2], micro_batch=1))
                continue
            progress.advance()
    if found.num_images:
        codes = tok.codes_in_effect()
        distances = {book: neighbour_distances(rows) for book, rows in codes.items()}
        record = make_record(args, tok, second, data, found, distances, refusals)
        record["protocol"] = {"preprocessing": preprocessing, **record["protocol"]}
        write_report(output, record, tok, found, distances)
        command.emit_json(record, args.json)
        text = f"{_summary(record)}\nwrote {output / HTML}"
        print(text, file=command.human_stream(args.json))
    refusals.raise_if_any()


def make_record(
    args: Any,
    tok: Any,
    second: Any | None,
    data: ImageData,
    found: Findings,
    distances: Distances,
    refusals: Refusals,
) -> dict[str, Any]:
    """Return all numbers, with the protocol that gives them their meaning."""
    tally = found.tally
    channels = [
        {"channel": channel, "book": book, **counts.numbers()}
        for channel, (book, counts) in enumerate(
            zip(tok.channel_books, tally.channels, strict=True)
        )
    ]
    means = [mean.summary() for mean in found.means]
    best, worst = (
        [_image_record(number, item.rows, data) for number, item in items]
        for items in found.extremes.best_and_worst()
    )
    return {
        "tool": "codebook",
        "version": movq_jax.__version__,
        "model": _model_record(args.model, tok),
        "second_model": second and _model_record(args.second_model, second),
        "data": {
            "name": data.name,
            "split": data.split,
            "num_images": found.num_images,
            "positions": tally.positions,
        },
        "protocol": {
            "padding": f"edges repeated to multiples of {tok.factor}, cut back",
            "counting": "each index of each position once",
            "rounding": "clipped, scaled to 0..255, rounded half to even, uint8",
            "psnr": "per image on uint8/255, averaged",
            "ssim": "Gaussian 11, sigma 1.5, interior",
            "micro_batch": tok.micro_batch,
            "model": tok.protocol,
        },
        "bits": {
            "per_position": tok.bits_per_position,
            "entropy_per_position": sum(c["entropy"] for c in channels),
            "per_image": {
                "mean": found.bits["sum"] / found.num_images,
                "least": found.bits["least"],
                "most": found.bits["most"],
            },
        },
        "quantisation_mse": found.quantisation_mse,
        "books": _book_records(tally, distances),
        "channels": channels,
        "pairs": [
            {"channels": list(pair), **counts.numbers()}
            for pair, counts in tally.pairs.items()
        ],
        "reconstruction": {
            "model": means[0],
            "second_model": means[1] if second else None,
            "best": best,
            "worst": worst,
        },
        "refused": refusals.as_records(),
    }


def _model_record(path: str, tok: Any) -> dict[str, Any]:
    return {
        "path": path,
        "fingerprint": tok.fingerprint,
        "quantizer": tok.config["quantizer"],
        "factor": tok.factor,
        "num_channels": tok.num_channels,
        "codebook_sizes": tok.codebook_sizes,
        "channel_books": tok.channel_books,
        "bits_per_position": tok.bits_per_position,
    }


def _book_records(tally: Any, distances: Distances) -> dict[str, Any]:
    records = {}
    for book in tally.book_names:
        record = tally.book(book).numbers()
        record["channels"] = tally.channels_of(book)
        record["neighbours"] = None
        if book in distances:
            found = distances[book]
            record["neighbours"] = {
                "codes": len(found),
                "min": float(found.min()),
                "median": float(np.median(found)),
                "max": float(found.max()),
                "equal": int((found == 0).sum()),
            }
        records[book] = record
    return records


def _image_record(number: int, rows: Sequence[Any], data: ImageData) -> dict[str, Any]:
    models = [{"psnr": row.psnr, "ssim": row.ssim} for row in rows]
    return {
        "name": data.names(number),
        "width": rows[0].width,
        "height": rows[0].height,
        "model": models[0],
        "second_model": models[1] if len(models) == 2 else None,
    }


def write_report(
    output: Path,
    record: dict[str, Any],
    tok: Any,
    found: Findings,
    distances: Distances,
) -> None:
    """Write the pictures, then the numbers, then the page that has them all."""
    from movq_jax.evaluation.codebooks import pictures as codebook_pictures

    best, worst = (
        [
            item._replace(name=image["name"])
            for (_, item), image in zip(
                items, record["reconstruction"][which], strict=True
            )
        ]
        for which, items in zip(
            ("best", "worst"), found.extremes.best_and_worst(), strict=True
        )
    )
    pictures: dict[Picture, bytes] = {}
    drawn = codebook_pictures.draw(
        tok, found.tally, distances, best=best, worst=worst, progress=Progress
    )
    for picture, image in drawn:
        path = output / picture.file
        write_png(path, image)
        pictures[picture] = path.read_bytes()
    record["pictures"] = [picture.file for picture in pictures]
    text = command.to_json(record)
    write_text(output / JSON, text + "\n")
    write_text(output / HTML, make_html(record, pictures))


def _places(output: Path, tok: Any) -> list[Path]:
    """The PNGs that may be written."""
    from movq_jax.evaluation.codebooks.pictures import file_names

    return [output / name for name in file_names(tok, MOST_SHOWN)]


def _summary(record: Mapping[str, Any]) -> str:
    """A few lines on what was found."""
    lines = []
    for name, numbers in record["books"].items():
        lines.append(
            f"{name}: {numbers['used']:,} of {numbers['size']:,} codes used, "
            f"{numbers['dead']:,} dead, perplexity {numbers['perplexity']:,.1f}, "
            f"entropy {numbers['entropy']:.3f} of {numbers['bits']:.6g} bits"
        )
    lines.append(f"quantisation error (MSE): {record['quantisation_mse']:.5g}")
    for key in ("model", "second_model"):
        mean = record["reconstruction"][key]
        if mean:
            psnr = "exact" if mean["psnr"] is None else f"{mean['psnr']:.2f} dB"
            ssim = "n/a" if mean["ssim"] is None else f"{mean['ssim']:.4f}"
            images = record["data"]["num_images"]
            lines.append(
                f"{record[key]['path']}: PSNR {psnr}, SSIM {ssim}, mean of {images:,}"
            )
    return "\n".join(lines)


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq codebook", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="a run's folder, or the model folder in it"
    )
    parser.add_argument(
        "--second-model", metavar="RUN", help="another model, to compare images with"
    )
    image_data.add_flags(parser)
    parser.add_argument(
        "--micro-batch",
        type=command.positive_int,
        metavar="N",
        help="images a compiled call (default: the model's choice for this device)",
    )
    parser.add_argument(
        "--output",
        default="codebook",
        metavar="DIR",
        help="the folder to write to (default: %(default)s)",
    )
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
