"""A dataset as indices: a folder to train a prior on.

    movq tokenize --model=runs/a --dataset=coco/2017 --split=train --out=tokens/

encodes each image of a split that `movq prepare` made, cut as the model was evaluated
on it in training, and writes the indices and labels to shards with a manifest; the
files are described in `movq_jax.data.tokens.manifest`. `movq encode` is for pictures.

The same command again goes on where it was stopped: shards that are finished stay.
Several processes share the work, each with a device of its own (on one machine by
CUDA_VISIBLE_DEVICES) and all with one folder: `--process=0/4` to `--process=3/4`. The
indices are the same, however many they are. The manifest comes when the last shard is
there, and nothing reads the folder before. An image that cannot be used is named and
left out, and the exit code is 4.

`movq tokenize --verify --out=tokens/` reads all of it and compares the checksums.
"""

import argparse
import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import movq_jax
from movq_jax.atomic import check_writable
from movq_jax.data.codes import MAX_MICRO_BATCH
from movq_jax.errors import InputsRefused, UserError
from movq_jax.tools import command, image_data
from movq_jax.tools.feeding import load_tokenizer

SHARD_IMAGES = 8192  # the most in a shard, unless --shards says otherwise
_PROCESS = re.compile(r"(\d+)/(\d+)")


class Dataset(NamedTuple):
    """A split of a prepared dataset, and what the manifest says of it."""

    source: Any
    name: str
    fingerprint: str | None
    classes: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag, the model, the dataset or the folder is wrong.
        InputsRefused: some images could not be used; the others are in the cache.
        Preempted: a notice to stop arrived; the same command goes on.
    """
    args = _parser().parse_args(argv)
    if args.verify:
        _verify(args)
        return
    _check_flags(args)
    folder = _local_folder(args.out)
    # Only now: what reads datasets takes seconds to import; --help need not wait.
    from movq_jax.data.tokens import shards as token_shards
    from movq_jax.data.tokens.manifest import MANIFEST
    from movq_jax.tools.tokenize_pass import encode, write_shards

    found = token_shards.find_plan(folder)
    check_writable(folder / MANIFEST)
    dataset = _open_dataset(args)
    # What the flags leave open is as it was when the work began.
    tok = load_tokenizer(args.model, args.micro_batch or (found and found.micro_batch))
    transform = _transform(args, tok)
    shards = args.shards or (found and found.num_shards)
    plan = _make_plan(tok, dataset, args.split, transform, args.flip, shards)
    token_shards.check_plan(folder, plan)
    if token_shards.missing_shards(folder, plan):
        # Before anything is written: this is where memory does not suffice.
        side = plan.image_size
        encode(tok, np.zeros((tok.micro_batch, side, side, 3), np.uint8))
    missing = token_shards.begin(folder, plan)
    mine = [shard for shard in missing if shard % args.process[1] == args.process[0]]
    if args.process[0] >= plan.num_shards:
        print(
            f"there is no shard for this process: there are {plan.num_shards} in all "
            f"(--shards={args.process[1]} in a new folder gives each process one)",
            file=sys.stderr,
        )
    with _stoppable(folder):
        refused = write_shards(tok, plan, dataset.source, transform, folder, mine)
    manifest = token_shards.complete(folder, plan)
    left = token_shards.missing_shards(folder, plan) if manifest is None else []
    if manifest is not None:
        refused = manifest.refused
    record = _record(args, tok, plan, written=mine, left=left, refused=refused)
    command.emit_json(record, args.json)
    text = _summary(folder, plan, args.process, record)
    print(text, file=command.human_stream(args.json))
    if refused:
        raise InputsRefused(
            f"{len(refused)} images of {plan.dataset} {plan.split} refused; the others "
            f"are in {folder}"
        )


def _open_dataset(args: argparse.Namespace) -> Dataset:
    """Open what the flags name.

    Raises:
        UserError: it is not a prepared dataset.
    """
    import tensorflow_datasets as tfds

    from movq_jax.data.preparing.prepared import read_manifest
    from movq_jax.data.sources import find_dataset, open_split, resolve_data_dir

    place = SimpleNamespace(dataset=args.dataset, data_dir=args.data_dir or "")
    try:
        source = open_split(place, args.split)
    except UserError as error:
        if not Path(args.dataset).expanduser().exists():
            raise
        raise UserError(
            f"--dataset={args.dataset} names files, not a prepared dataset: make one "
            f"with `movq prepare --dataset=folder --source={args.dataset}`; indices of "
            f"pictures alone are what `movq encode` writes"
        ) from error
    data_dir = resolve_data_dir(args.data_dir)
    folder = find_dataset(args.dataset, data_dir)
    features = tfds.builder_from_directory(folder).info.features
    label = features["label"] if "label" in features else None
    prepared = read_manifest(folder)  # None: TensorFlow Datasets made it
    return Dataset(
        source=source,
        name=folder.relative_to(data_dir).as_posix(),
        fingerprint=prepared and prepared.fingerprint,
        classes=tuple(getattr(label, "names", None) or ()),
    )


def _transform(args: argparse.Namespace, tok: Any) -> Any:
    """Return what is done to the images before they are encoded."""
    size = args.image_size
    run_config = image_data.run_config(args.model) if size is None else None
    transform, _ = image_data.make_transform(size, tok, run_config)
    if transform is None:
        raise UserError(
            f"the model {args.model} does not tell which images it was evaluated on: "
            f"give --image-size=256, or another multiple of {tok.factor}"
        )
    if transform.image_size % tok.factor:
        raise UserError(
            f"images of {transform.image_size} pixels a side do not fit the model "
            f"{args.model}: give --image-size as a multiple of {tok.factor}"
        )
    return transform


def _make_plan(
    tok: Any,
    dataset: Dataset,
    split: str,
    transform: Any,
    flip: bool,
    num_shards: int | None,
) -> Any:
    from movq_jax.data.tokens.manifest import Plan
    from movq_jax.data.transforms import CROPS, RESIZES

    count = len(dataset.source)
    return Plan(
        fingerprint=tok.fingerprint,
        codebook_sizes=tuple(tok.codebook_sizes),
        channel_books=tuple(tok.channel_books),
        factor=tok.factor,
        image_size=transform.image_size,
        preprocessing={
            "resize": _named(transform.resize, RESIZES),
            "crop": _named(transform.crop, CROPS),
            "image_size": transform.image_size,
        },
        flip=flip,
        micro_batch=tok.micro_batch,
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        split=split,
        num_examples=count,
        num_shards=min(num_shards or -(-count // SHARD_IMAGES), count),
        classes=dataset.classes,
    )


def _named(step: Any, family: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member of a family as a config has it, with all of its fields."""
    name = next(name for name, member in family.items() if member is type(step))
    fields = dataclasses.asdict(step)
    fields.pop("image_size")
    return {"name": name, **fields}


@contextlib.contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    """Leave in good order when the machine is wanted back, or at Ctrl-C."""
    goes_on = "finished shards are kept, the same command goes on"
    try:
        with command.sigterm_stops(f"stopped while {folder} was written: {goes_on}"):
            yield
    except KeyboardInterrupt:
        print(goes_on, file=sys.stderr)
        raise


def _verify(args: argparse.Namespace) -> None:
    """Read a cache to its last byte.

    Raises:
        UserError: something in it is wrong.
    """
    from movq_jax.data.tokens.cache import TokenCache

    cache = TokenCache.open(args.out)
    problems = list(cache.problems())
    record = {
        "tool": "tokenize",
        "version": movq_jax.__version__,
        "output": args.out,
        "num_images": len(cache),
        "num_shards": len(cache.manifest.shards),
        "problems": problems,
    }
    command.emit_json(record, args.json)
    if problems:
        for problem in problems:
            print(problem, file=sys.stderr)
        raise UserError(
            f"{args.out} is damaged, see above: delete these shards and run the "
            f"command that made them again"
        )
    print(
        f"{args.out}: {len(cache):,} images in {len(cache.manifest.shards)} shards, "
        f"all as the manifest says",
        file=command.human_stream(args.json),
    )


def _record(
    args: argparse.Namespace,
    tok: Any,
    plan: Any,
    *,
    written: Sequence[int],
    left: Sequence[int],
    refused: Sequence[Any],
) -> dict[str, Any]:
    return {
        "tool": "tokenize",
        "version": movq_jax.__version__,
        "model": {"path": args.model, "fingerprint": tok.fingerprint},
        "output": args.out,
        "plan": plan.as_record(),
        "process": "/".join(map(str, args.process)),
        "written": [plan.shard_file(shard) for shard in written],
        "missing": [plan.shard_file(shard) for shard in left],
        "finished": not left,
        "refused": [dataclasses.asdict(image) for image in refused],
    }


def _summary(
    folder: Path, plan: Any, process: tuple[int, int], record: Mapping[str, Any]
) -> str:
    h, w = plan.grid
    written, left = len(record["written"]), len(record["missing"])
    if left:
        why = "the other processes', or what they left: " if process[1] > 1 else ""
        return (
            f"wrote {written} of {plan.num_shards} shards to {folder}; {left} are "
            f"missing ({why}run their command again)"
        )
    count = plan.num_examples - len(record["refused"])
    twice = ", each mirrored, too" if plan.flip else ""
    what = f"wrote {written} of" if written else "all are there of"
    return (
        f"{folder}: {count:,} images as {h} x {w} x {plan.num_channels} indices{twice} "
        f"({count * plan.record_bytes / 1e6:,.1f} MB); {what} {plan.num_shards} shards"
    )


def _check_flags(args: argparse.Namespace) -> None:
    for name in ("model", "dataset"):
        if getattr(args, name) is None:
            raise UserError(
                f"--{name} is missing (`movq tokenize --help` shows all flags)"
            )
    if args.micro_batch is not None and args.micro_batch > MAX_MICRO_BATCH:
        raise UserError(f"--micro-batch={args.micro_batch} is above {MAX_MICRO_BATCH}")


def _local_folder(text: str) -> Path:
    if "://" in text:
        raise UserError(f"--out={text} is a bucket: name a local folder, and copy it")
    return Path(text).expanduser()


def _process(text: str) -> tuple[int, int]:
    match = _PROCESS.fullmatch(text)
    if not match or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not I/N with I from 0 to N - 1, such as 0/4"
        )
    return int(match[1]), int(match[2])


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="movq tokenize", description=__doc__)
    parser.add_argument("--model", help="a run's folder, or the model folder in it")
    parser.add_argument(
        "--dataset", help="a prepared dataset: NAME, NAME/EDITION, NAME:VERSION"
    )
    parser.add_argument(
        "--split",
        default="train",
        help="of the dataset, such as 'train[:10%%]' (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        "--output",
        required=True,
        metavar="DIR",
        help="the folder to write to; the same for all processes",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of datasets (default: $TFDS_DATA_DIR, ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--image-size",
        type=command.positive_int,
        metavar="N",
        help="short side resized to N, and the middle cut out (default: what the model "
        "was evaluated on in training)",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="write the indices of the mirrored images, too",
    )
    parser.add_argument(
        "--shards",
        type=command.positive_int,
        metavar="N",
        help=f"files to spread them over (default: one for {SHARD_IMAGES} images)",
    )
    parser.add_argument(
        "--process",
        type=_process,
        default=(0, 1),
        metavar="I/N",
        help="write each N-th shard from number I on (default: all of them)",
    )
    parser.add_argument(
        "--micro-batch",
        type=command.positive_int,
        metavar="N",
        help=f"images a compiled call, at most {MAX_MICRO_BATCH}; one index in 10,000 "
        "may depend on it (default: the model's choice for this device)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="only read what is in --out, all of it"
    )
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
