"""The flags of `movq evaluate`, and what they mean together."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from movq_jax.atomic import check_writable
from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import (
    METRICS,
    PAIRS,
    PRIOR,
    SETS,
    of_kind,
    read_names,
)
from movq_jax.tools import command, files, image_data, sampling_flags

DEFAULT_METRICS = "psnr,ssim"


def make_parser(description: str) -> command.ArgumentParser:
    """Return the parser of the command."""
    parser = command.ArgumentParser(prog="movq evaluate", description=description)
    _add_image_flags(parser)
    parser.add_argument(
        "--metrics",
        metavar="A,B",
        help=f"{', '.join(METRICS)} (default: {DEFAULT_METRICS}; of a prior nll)",
    )
    parser.add_argument(
        "--protocol",
        metavar="A,B",
        help="default, titok, taming, clean, adm, pytorch_fid, torch_fidelity; of "
        "several, each image is read once (default: default)",
    )
    parser.add_argument(
        "--image-size",
        type=_image_size,
        metavar="N",
        help="the side that the protocol resizes and cuts to, or 'whole': images as "
        "they are (default: the model's, else the protocol's)",
    )
    _add_network_flags(parser)
    parser.add_argument(
        "--save-statistics",
        metavar="FILE.npz",
        help="write the statistics of the images, for --reference",
    )
    parser.add_argument("--html", metavar="FILE", help="write a page with the worst")
    parser.add_argument(
        "--per-image",
        metavar="FILE.csv",
        help="write the numbers of each image, of metrics of pairs",
    )
    command.add_json_flag(parser)
    sampling_flags.add_flags(parser)
    # None tells whether it was given: images that are there have no use for a seed.
    parser.set_defaults(seed=None)
    return parser


def check(args: argparse.Namespace) -> None:
    """Check what flags alone can tell, and that results could be written.

    Raises:
        UserError: flags contradict one another, or a name or place is wrong.
    """
    if args.metrics is not None:
        read_names(args.metrics)
    _check_sides(args)
    if args.dataset is None and (args.split or args.data_dir):
        raise UserError("--split and --data-dir are of a dataset: give --dataset")
    if args.num is not None and args.model is None:
        raise UserError("--num is of a prior's samples; --max-images takes the first N")
    if args.kid_subset < 2:
        raise UserError("--kid-subset is at least 2: KID compares images of a subset")
    for place in outputs(args).values():
        check_writable(place)
    files.refuse_same_file(outputs(args), [])
    for flag in ("save_statistics", "per_image"):
        if getattr(args, flag) is not None and len(protocol_names(args)) > 1:
            flag = sampling_flags.flag(flag)
            raise UserError(f"{flag} is of one protocol: name one in --protocol")
    if args.save_statistics is None:
        return
    if not args.save_statistics.endswith(".npz"):
        raise UserError(f"--save-statistics={args.save_statistics} must end with .npz")
    if args.model is not None:
        raise UserError("--save-statistics is of images that are there, not of a model")


def outputs(args: argparse.Namespace) -> dict[str, Path]:
    """Return the files that are to be written, by their flags."""
    flags = ("json", "html", "per_image", "save_statistics")
    given = {sampling_flags.flag(flag): getattr(args, flag) for flag in flags}
    return {
        flag: Path(os.path.expanduser(place))
        for flag, place in given.items()
        if place not in (None, command.STDOUT)
    }


def protocol_names(args: argparse.Namespace) -> list[str]:
    """Return the names in `--protocol`, each once, spelt with underscores."""
    text = "default" if args.protocol is None else args.protocol
    names = [name.strip().replace("-", "_") for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def metrics_of(args: argparse.Namespace, *, prior: bool) -> tuple[str, ...]:
    """Return the metrics that are asked for, or those of such a model.

    Raises:
        UserError: they have nothing to be measured on.
    """
    if args.metrics is None and not prior and args.save_statistics:
        raise UserError("which statistics? Name metrics, such as --metrics=fid,sfid")
    metrics = read_names(args.metrics or ("nll" if prior else DEFAULT_METRICS))
    alone, pairs, sets = (of_kind(metrics, kind) for kind in (PRIOR, PAIRS, SETS))
    if prior:
        _check_prior(args, metrics)
    elif alone:
        raise UserError(f"{alone[0]} is of a prior: give its --model, and --dataset")
    _check_sampling(args, drawn=prior and bool(sets), prior=prior)
    if args.save_statistics and not any(METRICS[name].is_frechet for name in sets):
        raise UserError(
            f"there are no statistics of {', '.join(metrics)} to save: name a Fréchet "
            "distance in --metrics, such as fid, sfid or squeezenet_fd"
        )
    if args.per_image and not pairs:
        raise UserError(
            f"{', '.join(metrics)} has no numbers of single images for --per-image: "
            "ask for metrics of pairs, such as --metrics=psnr,ssim"
        )
    has_reference = args.reference or args.model or (args.images and args.dataset)
    if prior:
        has_reference = args.reference or args.dataset
    wanting = [name for name in sets if METRICS[name].needs_reference]
    if args.save_statistics is None:
        pairs += tuple(wanting)
    if pairs and not has_reference:
        raise UserError(
            f"{pairs[0]} compares images with a reference: give --reference"
        )
    return metrics


def _check_prior(args: argparse.Namespace, metrics: Sequence[str]) -> None:
    alone, pairs, sets = (of_kind(metrics, kind) for kind in (PRIOR, PAIRS, SETS))
    if args.images is not None:
        raise UserError(
            f"--model={args.model} is a prior, which draws images: leave out --images, "
            "and give --dataset or --reference to compare with"
        )
    if pairs:
        raise UserError(
            f"{pairs[0]} compares an image with its partner, and a prior's samples "
            "have none: ask for metrics of sets, such as --metrics=fid"
        )
    if sets and args.num is None:
        raise UserError(f"{sets[0]} needs samples of the prior: --num=N tells how many")
    if not sets and args.num is not None:
        raise UserError(
            f"--num samples have no use for {', '.join(metrics)}: ask for metrics of "
            "sets, such as --metrics=fid, or leave out --num"
        )
    if alone and not args.dataset:
        raise UserError(f"{alone[0]} is of the images of a split: give --dataset")
    if not sets and args.protocol is not None:
        raise UserError(
            f"--protocol has no use for {', '.join(metrics)}: images are prepared as "
            "in the prior's training; leave it out"
        )


def _check_sampling(args: argparse.Namespace, *, drawn: bool, prior: bool) -> None:
    """Refuse flags of drawing where nothing is drawn."""
    if drawn:
        return
    given = [name for name in ("num", "seed") if getattr(args, name) is not None]
    given = [*sampling_flags.options(args), *given]
    if given:
        flag = sampling_flags.flag(given[0])
        hint = (
            "ask for metrics of sets, such as --metrics=fid"
            if prior
            else ("give its --model")
        )
        raise UserError(f"{flag} tells how a prior draws: {hint}, or leave it")


def _check_sides(args: argparse.Namespace) -> None:
    images, dataset = args.images is not None, args.dataset is not None
    if args.model is not None:
        if images and dataset:
            raise UserError("a model gets --images or --dataset, not both: leave one")
    elif not images and not dataset:
        raise UserError(
            "what is to be judged? Give --images=FOLDER and --reference, or --model "
            "and --dataset"
        )
    elif images and dataset and args.reference is not None:
        raise UserError(
            "--images, --reference and --dataset are one too many: a dataset is what "
            "one of the other two leaves open"
        )


def _add_image_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        nargs="+",
        action="extend",
        help="images to be judged: files, folders, patterns, or an npz with arr_0",
    )
    parser.add_argument(
        "--reference",
        nargs="+",
        action="extend",
        help="what they are compared with: images likewise, or an npz of statistics",
    )
    parser.add_argument(
        "--model", help="a tokenizer, whose reconstructions are judged, or a prior"
    )
    parser.add_argument(
        "--dataset",
        help="a prepared dataset: what the model gets; without a model the reference, "
        "or the images where there are none",
    )
    parser.add_argument("--split", help=f"of the dataset (default: {image_data.SPLIT})")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of datasets (default: $TFDS_DATA_DIR, ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--num", type=command.positive_int, metavar="N", help="samples of a prior"
    )
    parser.add_argument(
        "--max-images",
        type=command.positive_int,
        metavar="N",
        help="the first N images of each set (default: all)",
    )


def _add_network_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("networks (default: in $MOVQ_JAX_WEIGHTS)")
    group.add_argument(
        "--inception", metavar="FILE", default="", help=".pth, .npz or .safetensors"
    )
    group.add_argument(
        "--squeezenet", metavar="FILE", default="", help="squeezenet_v1.0.npz"
    )
    group.add_argument(
        "--lpips", metavar="DIR", default="", help="folder of backbones and heads"
    )
    group.add_argument(
        "--micro-batch",
        type=command.micro_batch,
        metavar="N",
        help="images a compiled call (default: what is best for this device)",
    )
    group.add_argument(
        "--kid-subset",
        type=command.positive_int,
        default=1000,
        metavar="N",
        help="images in a subset of KID (default: %(default)s)",
    )


def _image_size(text: str) -> int:
    """Read a side; 0 is 'whole'."""
    return 0 if text == image_data.WHOLE else image_data.image_side(text)
