"""Photographs -> a dataset to train on.

    movq prepare --dataset=photos
    movq prepare --dataset=folder --source=pictures/ --name=birds
    movq prepare --dataset=coco --source=DIR
    movq prepare --dataset=coco --verify

A dataset lies in DATA_DIR/NAME/1.0.0 (with an edition, as in coco/2017, in
DATA_DIR/NAME/EDITION/1.0.0), in the layout of TensorFlow Datasets, with the
files as they were. It is there as a whole or not at all: of a run that is stopped, or
killed, the finished files are kept in a hidden folder, and the same command goes on
with them. However often that happened, and with any number of --jobs, the result is
the same to the byte.

--verify needs no source: it compares hashes and counts, and decodes every image.

The datasets with an official layout say where to get them, under what licence and how
the files must lie, when --source is left out. Archives are read without being unpacked.
"""

import argparse
import contextlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from movq_jax.data.builders import BUILDERS
from movq_jax.data.builders.listing import Listing
from movq_jax.data.images import ImageError
from movq_jax.data.preparing.prepared import Prepared
from movq_jax.data.preparing.verifying import Verified, verify_dataset
from movq_jax.data.preparing.working_folder import Busy
from movq_jax.data.preparing.writing import find_prepared, unfinished, write_dataset
from movq_jax.data.sources import resolve_data_dir
from movq_jax.errors import InputsRefused, UserError
from movq_jax.progress import Progress
from movq_jax.tools import command

_MEGABYTE = 10**6
_MOST_NAMED = 20
_BUILDER_FLAGS = ("source", "validation_fraction", "split_list")


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the dataset that the flags describe, and say what is in it.

    Raises:
        UserError: flags, source or place are wrong, an image cannot be decoded, or
            the dataset to be verified is damaged.
        InputsRefused: done, without the images that cannot be decoded.
        Preempted: it got a SIGTERM; the same command goes on.
    """
    args = _parser().parse_args(argv)
    kind, _, edition = args.dataset.partition("/")
    name = args.name or kind
    if name in BUILDERS and name != kind:
        raise UserError(f"--name={name} is what another kind of dataset is called")
    data_dir = resolve_data_dir(args.data_dir)
    with command.sigterm_stops("stopped by SIGTERM: start the same command again"):
        if args.verify:
            _verify(args, f"{name}/{edition}" if edition else name, data_dir)
        else:
            _prepare(args, name, data_dir)


def _prepare(args: argparse.Namespace, name: str, data_dir: Path) -> None:
    listing = _listing(args)
    dataset = f"{name}/{listing.config}" if listing.config else name
    out = command.human_stream(args.json)
    for note in listing.notes:
        print(f"warning: {note}", file=sys.stderr)
    prepared = find_prepared(name, data_dir, listing)
    if prepared is not None:
        print(f"{dataset} is already prepared in {prepared.folder}", file=out)
    else:
        prepared = _write(listing, name, data_dir, args)
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
        "others: the official files, with /EDITION where there are several",
    )
    parser.add_argument(
        "--source",
        metavar="PATH",
        help="folder of images, text file of paths, or 'pattern*.jpg' in quotes; of "
        "others: the folder with the official folders or archives",
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
        "--split-list",
        metavar="FILE",
        help="numbers of the validation images, a line each, of editions that have "
        "such a list (default: the published one)",
    )
    parser.add_argument(
        "--jobs",
        type=command.positive_int,
        metavar="N",
        help="processes (default: one for each 256 MB, at most the cores); the result "
        "does not depend on it",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="look whether the prepared dataset is whole: exit code 2 if not",
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
        for flag in _BUILDER_FLAGS
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


def _write(
    listing: Listing, name: str, data_dir: Path, args: argparse.Namespace
) -> Prepared:
    try:
        with _Counter("refused") as counter:
            return write_dataset(
                listing,
                name=name,
                data_dir=data_dir,
                skip_broken=args.skip_broken,
                on_image=counter.count,
                on_start=counter.start,
                jobs=args.jobs,
            )
    except BaseException as error:
        if not isinstance(error, Busy) and unfinished(name, data_dir, listing):
            print(
                "what is finished is kept: the same command goes on with it",
                file=sys.stderr,
            )
        if isinstance(error, ImageError):
            raise UserError(
                f"{error}; nothing was prepared. Mend or remove the file, or leave out "
                f"all that are broken: --skip-broken"
            ) from error
        raise


class _Counter:
    """Shows how far it is, and the first of the images that something is wrong with."""

    def __init__(self, what: str):
        self._what, self._wrong = what, 0
        self._total = 0
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None

    def __enter__(self) -> "_Counter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start(self, to_do: int, kept: int = 0) -> None:
        """Begin to count; `kept` images are done and do not count for the rate."""
        if kept:
            print(f"{kept:,} images are done, {to_do:,} to go", file=sys.stderr)
        self._total = to_do

    def count(self, problem: str | None) -> None:
        """Count an image, and say what is wrong with it."""
        if self._progress is None:  # processes that start do not count for the rate
            progress = Progress(self._total, "images")
            self._progress = self._stack.enter_context(progress)
        if problem is not None:
            self._wrong += 1
            if self._wrong <= _MOST_NAMED:
                self._progress.note(f"{self._what}: {problem}")
            elif self._wrong == _MOST_NAMED + 1:
                self._progress.note(f"{self._what}: more, see the end")
        self._progress.advance()


def _table(dataset: str, data_dir: Path, prepared: Prepared, listing: Listing) -> str:
    """Return what is in the dataset, for people."""
    lines = [f"{'split':<12}{'images':>10}{'refused':>10}{'MB':>10}"]
    for split, images in prepared.images.items():
        refused = len(listing.splits[split]) - images
        megabytes = prepared.bytes[split] / _MEGABYTE
        lines.append(f"{split:<12}{images:>10,}{refused:>10,}{megabytes:>10,.1f}")
    notes = {
        "classes": len(prepared.classes),
        "other files left out": listing.ignored,
        "refused": len(prepared.refused),
    }
    lines += [f"{note}: {count:,}" for note, count in notes.items() if count]
    use = "to train on it:" if "train" in prepared.images else "to evaluate on it:"
    lines.append(f"in {prepared.folder}; {use}")
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
        "sha256": prepared.sha256,
    }


def _raise_refused(prepared: Prepared) -> None:
    if not prepared.refused:
        return
    raise InputsRefused(
        f"not in the dataset, because they cannot be decoded:"
        f"{_listed(list(prepared.refused.values()))}"
    )


def _listed(problems: Sequence[str]) -> str:
    """Return a line for each of the first problems, and the number of the others."""
    lines = list(problems[:_MOST_NAMED])
    if len(problems) > _MOST_NAMED:
        lines.append(f"and {len(problems) - _MOST_NAMED:,} more (all of them: --json)")
    return "".join(f"\n  {line}" for line in lines)


def _verify(args: argparse.Namespace, dataset: str, data_dir: Path) -> None:
    """Look at a prepared dataset, and say what is wrong with it."""
    for flag in (*_BUILDER_FLAGS, "skip_broken"):
        if getattr(args, flag) not in (None, False):
            raise UserError(f"--{flag.replace('_', '-')} is not for --verify")
    out = command.human_stream(args.json)
    with _Counter("damaged") as counter:
        verified = verify_dataset(
            dataset,
            data_dir,
            on_start=counter.start,
            on_image=counter.count,
            jobs=args.jobs,
        )
    print(_verified_table(verified), file=out)
    record = {
        "dataset": dataset,
        "folder": verified.folder,
        "images": verified.images,
        "bytes": verified.bytes,
        "shards": verified.shards,
        "problems": verified.problems,
    }
    command.emit_json(record, args.json)
    if verified.problems:
        raise UserError(
            f"{verified.folder} is damaged; delete that folder and prepare the dataset "
            f"again:{_listed(verified.problems)}"
        )


def _verified_table(verified: Verified) -> str:
    lines = [f"{'split':<12}{'images':>10}{'files':>10}{'MB':>10}"]
    for split, images in verified.images.items():
        megabytes = verified.bytes[split] / _MEGABYTE
        files = verified.shards[split]
        lines.append(f"{split:<12}{images:>10,}{files:>10,}{megabytes:>10,.1f}")
    if not verified.problems:
        hashed = verified.prepared is not None and verified.prepared.sha256
        what = "counts, hashes and images" if hashed else "counts and images"
        lines.append(f"{verified.folder} is whole: {what}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command.run(main))
