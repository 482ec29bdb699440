"""Photographs -> a dataset to train on.

    movq prepare --dataset=photos
    movq prepare --dataset=folder --source=pictures/ --name=birds
    movq prepare --dataset=coco --source=DIR

A dataset lies in DATA_DIR/NAME/1.0.0 (with an edition, as in coco/2017, in
DATA_DIR/NAME/EDITION/1.0.0), in the layout of TensorFlow Datasets, with the
files as they were. It is there as a whole or not at all: a run that is stopped leaves
nothing, and the same command again begins anew, or says that all is done.

coco: train2017.zip, val2017.zip and, for the captions, annotations_trainval2017.zip of
https://cocodataset.org/#download (2014 likewise) lie in --source as they are, or
unpacked to train2017/, val2017/ and annotations/. coco/2014 and coco/2017 choose where
both are. Annotations are under CC BY 4.0, images under the terms of use of Flickr.
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from movq_jax.data.builders import BUILDERS
from movq_jax.data.builders.listing import Listing
from movq_jax.data.builders.writing import Prepared, find_prepared, write_dataset
from movq_jax.data.images import ImageError
from movq_jax.data.sources import resolve_data_dir
from movq_jax.errors import InputsRefused, UserError
from movq_jax.progress import Progress
from movq_jax.tools import command

_MEGABYTE = 10**6
_MOST_NAMED = 20


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the dataset that the flags describe, and say what is in it.

    Raises:
        UserError: flags, source or place are wrong, or an image cannot be decoded.
        InputsRefused: done, without the images that cannot be decoded.
    """
    args = _parser().parse_args(argv)
    kind = args.dataset.partition("/")[0]
    name = args.name or kind
    if name in BUILDERS and name != kind:
        raise UserError(f"--name={name} is what another kind of dataset is called")
    data_dir = resolve_data_dir(args.data_dir)
    listing = _listing(args)
    dataset = f"{name}/{listing.config}" if listing.config else name
    out = command.human_stream(args.json)
    for note in listing.notes:
        print(f"warning: {note}", file=sys.stderr)
    prepared = find_prepared(name, data_dir, listing)
    if prepared is not None:
        print(f"{dataset} is already prepared in {prepared.folder}", file=out)
    else:
        prepared = _write(listing, name, data_dir, args.skip_broken)
    print(_table(dataset, data_dir, prepared, listing), file=out)
    command.emit_json(_record(dataset, prepared, listing), args.json)
    _raise_refused(prepared)


def _parser() -> argparse.ArgumentParser:
    parser = command.ArgumentParser(prog="movq prepare", description=__doc__)
    parser.add_argument(
        "--dataset",
        choices=sorted(BUILDERS),
        required=True,
        help="photos: those inside scikit-image and scikit-learn; folder: your own; "
        "coco: the official files",
    )
    parser.add_argument(
        "--source",
        metavar="PATH",
        help="folder of images, text file of paths, or 'pattern*.jpg' in quotes; of "
        "coco: the folder with the official folders or zips",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of datasets (default: $TFDS_DATA_DIR, ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--name",
        help="what to call it (default: as --dataset), for data.dataset; an edition "
        "is added to it",
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        metavar="X",
        help="share held out where the source has no validation set (default: 0.1)",
    )
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out files that cannot be decoded, and leave with exit code 4",
    )
    command.add_json_flag(parser)
    return parser


def _listing(args: argparse.Namespace) -> Listing:
    """Call the builder with the flags it takes."""
    find = BUILDERS[args.dataset]
    parameters = inspect.signature(find).parameters
    flags = {
        flag: getattr(args, flag)
        for flag in ("source", "validation_fraction")
        if getattr(args, flag) is not None
    }
    for flag in flags:
        if flag not in parameters:
            raise UserError(
                f"--{flag.replace('_', '-')} is not for --dataset={args.dataset}"
            )
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in flags:
            raise UserError(f"--dataset={args.dataset} needs --{parameter.name}")
    return find(**flags)


def _write(listing: Listing, name: str, data_dir: Path, skip_broken: bool) -> Prepared:
    total = sum(map(len, listing.splits.values()))
    with Progress(total, "images") as progress:

        def on_image(refusal: str | None) -> None:
            if refusal:
                progress.note(f"refused: {refusal}")
            progress.advance()

        try:
            return write_dataset(
                listing,
                name=name,
                data_dir=data_dir,
                skip_broken=skip_broken,
                on_image=on_image,
            )
        except ImageError as error:
            raise UserError(
                f"{error}; nothing was prepared. Mend or remove the file, or leave out "
                f"all that are broken: --skip-broken"
            ) from error


def _table(dataset: str, data_dir: Path, prepared: Prepared, listing: Listing) -> str:
    """Return what is in the dataset, for people."""
    lines = [f"{'split':<12}{'images':>10}{'MB':>10}"]
    for split, images in prepared.images.items():
        megabytes = prepared.bytes[split] / _MEGABYTE
        lines.append(f"{split:<12}{images:>10,}{megabytes:>10,.1f}")
    notes = {
        "classes": len(prepared.classes),
        "other files left out": listing.ignored,
        "refused": len(prepared.refused),
    }
    lines += [f"{note}: {count:,}" for note, count in notes.items() if count]
    lines.append(f"in {prepared.folder}; to train on it:")
    lines.append(f"  --config.data.dataset={dataset} --config.data.data_dir={data_dir}")
    return "\n".join(lines)


def _record(dataset: str, prepared: Prepared, listing: Listing) -> dict:
    return {
        "dataset": dataset,
        "folder": prepared.folder,
        "fingerprint": prepared.fingerprint,
        "images": prepared.images,
        "bytes": prepared.bytes,
        "classes": prepared.classes,
        "ignored": listing.ignored,
        "notes": listing.notes,
        "refused": [
            {"file": file, "reason": reason}
            for file, reason in prepared.refused.items()
        ],
    }


def _raise_refused(prepared: Prepared) -> None:
    if not prepared.refused:
        return
    files = list(prepared.refused)
    more = f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
    raise InputsRefused(
        f"not in the dataset, because they cannot be decoded: "
        f"{', '.join(files[:_MOST_NAMED])}{more}"
    )


if __name__ == "__main__":
    sys.exit(command.run(main))
