"""How fast training, encoding, decoding, drawing and the input pipeline are.

    movq benchmark --config=configs/movq_imagenet.py --dtype=bfloat16 --json=speed.json
    movq benchmark --config=movq_f8 --part=train --batch-size=32 --breakdown
    movq benchmark --part=input --dataset=birds --image-size=224
    movq benchmark --config=configs/maskgit_movq_imagenet.py --part=sample

Reports for each part the time of a step (median, spread, 99th percentile, mean), images
a second, the time of compiling (jax's compilation cache is off), the memory, and the
share that it reaches of the rate of matrix products measured beside it, by turns, in
the same run; where the device is known, also of its datasheet's. FLOPs are counted
(`movq_jax.flops`), not the compiler's. Images and weights are random: how long a step
takes does not depend on them, and no weights are fetched. `--data=real` feeds training
from the dataset. Of a prior training and drawing are measured, both on indices.

Where R1 is in each n-th step only, which the median step does not show, rates are those
of whole periods of n steps: a turn ends with one, images a second and shares are of the
median over periods of the mean of a period, and FLOPs are the mean. In the record
(--json) n is `period` of a part (1: all steps are alike), and that time is
`step_seconds.of_period`, beside `median` and `mean`.

`--part=input` measures the pipeline of `--dataset`, or of the config: read, decode,
crop, mirror, batch, beside what one core does that only decodes.
`--num-workers=0,1,2,4` repeats that by so many processes, and `--reduced-decoding` with
JPEGs decoded at a fraction of their size, where training may do so.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import movq_jax
from movq_jax import families
from movq_jax.config import kind_of, load_config, split_overrides
from movq_jax.config.schema import tokenizer_config
from movq_jax.errors import UserError
from movq_jax.tools import command

MODEL_PARTS = {"tokenizer": ("train", "encode", "decode"), "prior": ("train", "sample")}
PARTS = ("train", "encode", "decode", "sample", "input")
_INPUT_BATCH = 64  # where no config says


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the flags ask for; print or write it.

    Raises:
        UserError: flags or config are wrong, or the dataset is not there.
    """
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(words)
    named = _read_parts(args)
    config = _read_config(args, named, overrides)
    parts = named or list(MODEL_PARTS[kind_of(config)])
    _check_parts(args, parts, kind_of(config))
    record = {
        "tool": "benchmark",
        "version": movq_jax.__version__,
        "config": args.config,
        "overrides": overrides,
        "batch_size": config.train.batch_size,
        "image_size": config.data.image_size,
    }
    stream = command.human_stream(args.json)
    if parts != ["input"]:
        record |= _measure_model(args, parts, config)
        print("\n".join(_model_table(record)), file=stream)
    if "input" in parts:
        record["input"] = _measure_input(args, config)
        print(_input_table(record["input"]), file=stream)
    command.emit_json(record, args.json)


def _measure_model(
    args: argparse.Namespace, parts: Sequence[str], config: Any
) -> dict[str, Any]:
    # Only now: jax takes a second to import, and a typing mistake should be answered
    # at once.
    import jax

    from movq_jax.cores import usable_cores
    from movq_jax.measuring.model import measure_model
    from movq_jax.measuring.timing import Limits

    measured = measure_model(
        config,
        parts,
        phase=args.phase,
        breakdown=args.breakdown,
        real_data=args.data == "real",
        rounds=args.rounds,
        limits=Limits(seconds=args.seconds, steps=args.steps),
    )
    return {
        "dtype": config.model.dtype,
        "data": args.data,
        "jax": jax.__version__,
        "cores": usable_cores(),
        **measured,
    }


def _measure_input(args: argparse.Namespace, config: Any) -> dict[str, Any]:
    from movq_jax.measuring.input import measure_input

    return measure_input(
        config.data.to_dict(),
        batch_size=config.train.batch_size,
        seconds=args.seconds,
        rounds=args.rounds,
        workers=args.num_workers,
        reduced_decoding=args.reduced_decoding,
    )


def _read_parts(args: argparse.Namespace) -> list[str]:
    """Return what `--part` names, in the order of `PARTS`; []: all of the model's."""
    if args.part is None:
        return [] if args.config else ["input"]
    named = [name.strip() for name in args.part.split(",") if name.strip()]
    for name in named or [args.part]:
        if name not in PARTS:
            raise UserError(f"there is no part {name!r}{families.nearest(name, PARTS)}")
    return [name for name in PARTS if name in named]


def _read_config(
    args: argparse.Namespace, parts: Sequence[str], overrides: list[str]
) -> Any:
    """Return the config with the flags in it; without --config one for the input."""
    models = [name for name in parts if name != "input"]
    if args.config is not None:
        config = load_config(args.config, overrides)
    elif models:
        raise UserError(
            f"--part={models[0]} needs a config: give --config=configs/movq_photos.py, "
            "or another one"
        )
    elif args.dataset is None:
        raise UserError(
            "what is to be measured? Give --config=configs/movq_photos.py, or another "
            "one, or --dataset for the input pipeline alone"
        )
    else:
        from movq_jax.cores import usable_cores

        config = tokenizer_config()
        config.data.train.resize = {"name": "none"}
        config.data.num_threads = 2 * usable_cores()
        config.train.batch_size = _INPUT_BATCH
        config.unlock().lock()
        for override in overrides:
            raise UserError(f"{override} needs --config")
    _apply_flags(config, args)
    return config


def _check_parts(args: argparse.Namespace, parts: Sequence[str], kind: str) -> None:
    """Refuse parts and flags that this kind of config has not."""
    models = [name for name in parts if name != "input"]
    for name in models:
        if name not in MODEL_PARTS[kind]:
            raise UserError(
                f"--part={name}, but the config is of a {kind}, which has "
                f"{', '.join(MODEL_PARTS[kind])} and input"
            )
    if args.data == "real" and "train" not in parts:
        raise UserError("--data=real feeds the training step: add train to --part")
    if args.breakdown and not models:
        raise UserError("--breakdown is of a model: give --config")
    if kind == "prior" and (args.data == "real" or args.breakdown):
        flag = "--breakdown" if args.breakdown else "--data=real"
        raise UserError(f"{flag} is of tokenizers, and the config is of a prior")


def _apply_flags(config: Any, args: argparse.Namespace) -> None:
    data = config.data
    for key in ("dataset", "data_dir", "image_size", "num_threads", "prefetch"):
        value = getattr(args, key)
        if value is not None:
            data[key] = value
    with config.unlocked():
        if args.crop is not None:
            data.train.crop = {"name": args.crop}
        if args.resize is not None:
            data.train.resize = {"name": args.resize}
    if args.split is not None:
        data.split_train = args.split
    if args.decode_once:
        data.decode_once = True
    if args.batch_size is not None:
        config.train.batch_size = args.batch_size
    if args.dtype is not None:
        config.model.dtype = args.dtype


def _model_table(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    device, product = record["device"], record["matrix_product"]
    yield (
        f"{record['config']} on {device['count']} x {device['kind']}, "
        f"{record['dtype']}, batch {record['batch_size']}, "
        f"{record['image_size']}x{record['image_size']}, jax {record['jax']}"
    )
    rate = product["flops_per_second"] / 1e12
    yield (
        f"matrix products of {product['size']}² ({product['dtype']}): {rate:,.4g} "
        f"TFLOP/s a device{_datasheet(device['datasheet_flops_per_second'])}"
    )
    known = device["datasheet_flops_per_second"] is not None
    for title in ("parts", "breakdown"):
        if record[title]:
            yield ""
            yield from _rows(record[title], known)
    sources = {part["peak_bytes_source"] for part in record["parts"].values()}
    yield f"memory: of a device, as told by the {' or '.join(map(str, sources))}"
    yield from _remarks(record["parts"] | record["breakdown"])
    for part in record["parts"].values():
        if "data_wait_share" in part:
            yield f"waited for real data: {part['data_wait_share']:.1%} of the time"


def _remarks(parts: dict[str, Any]) -> Iterator[str]:
    for name, part in parts.items():
        if part["period"] > 1:
            yield (
                f"{name}: R1 is in one step of {part['period']}; images/s, TFLOP/s and "
                "shares are of whole periods of so many steps, "
                f"{_number(1e3 * part['step_seconds']['of_period'])} ms a step"
            )
    above = [n for n, part in parts.items() if part["share_of_matrix_product"] > 1]
    if above:
        yield (
            f"more than 100% of the matrix product: {', '.join(above)}. Either other "
            "programs disturbed the product (measure again, with more --rounds or "
            "--seconds), or convolutions do with fewer operations here than are counted"
        )


def _datasheet(peak: float | None) -> str:
    return "" if peak is None else f" (datasheet: {peak / 1e12:,.4g})"


def _rows(parts: dict[str, Any], known: bool) -> Iterator[str]:
    width = max(map(len, parts))
    yield (
        f"{'':{width}}    ms a step (p10 to p90, p99)      mean   images/s   TFLOP/s  "
        f"of product{'  of datasheet' if known else ''}  memory GB  compiled in"
    )
    for name, part in parts.items():
        seconds = part["step_seconds"]
        low, mid, high, worst = (
            _number(1e3 * seconds[key]) for key in ("p10", "median", "p90", "p99")
        )
        spread = f"{mid} ({low} to {high}, {worst})"
        datasheet = f"{part['share_of_datasheet']:>14.1%}" if known else ""
        memory = part["peak_bytes"]
        memory = "?" if memory is None else f"{memory / 1e9:.3g}"
        yield (
            f"{name:{width}}    {spread:<29}{_number(1e3 * seconds['mean']):>8}"
            f"{_number(part['images_per_second']):>11}"
            f"{_number(part['flops_per_second'] / 1e12):>10}"
            f"{part['share_of_matrix_product']:>12.1%}{datasheet}{memory:>11}"
            f"{part['compile_seconds']:>11.1f} s"
        )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _parser() -> argparse.ArgumentParser:
    parser = command.ArgumentParser(prog="movq benchmark", description=__doc__)
    size = {"type": command.positive_int, "metavar": "N"}
    parser.add_argument(
        "--config", help="a config; --config.model.width=64 overrides a key of it"
    )
    parser.add_argument(
        "--part",
        metavar="PART,...",
        help="of train, encode, decode, of a prior train, sample, and input (default: "
        "all of the model's; without --config: input)",
    )
    parser.add_argument("--batch-size", help="default: the config's", **size)
    parser.add_argument(
        "--rounds", default=5, help="turns of each (default: %(default)s)", **size
    )
    parser.add_argument(
        "--seconds",
        type=command.positive_number,
        default=2.0,
        help="of each turn, one step at least (default: %(default)s)",
    )
    model = parser.add_argument_group("of a model")
    model.add_argument(
        "--phase", help="of training (default: the last that the config has)"
    )
    model.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="instead of the config's"
    )
    model.add_argument(
        "--steps",
        help="of each turn, instead of --seconds, which remain for the matrix product",
        **size,
    )
    model.add_argument(
        "--data", choices=["synthetic", "real"], default="synthetic", help="to train on"
    )
    model.add_argument(
        "--breakdown",
        action="store_true",
        help="also each network of a training step by itself",
    )
    _add_input_flags(parser.add_argument_group("of the data, instead of the config's"))
    command.add_json_flag(parser)
    return parser


def _add_input_flags(group: Any) -> None:
    size = {"type": command.positive_int, "metavar": "N"}
    group.add_argument("--dataset", help="a prepared dataset")
    group.add_argument("--split")
    group.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of datasets (default: $TFDS_DATA_DIR, ~/tensorflow_datasets)",
    )
    group.add_argument("--image-size", **size)
    group.add_argument("--crop", help="random, center or none")
    group.add_argument("--resize", help="none, short_side or squash")
    group.add_argument("--num-threads", **size)
    group.add_argument(
        "--num-workers",
        type=_numbers,
        default=(),
        metavar="N,...",
        help="processes to measure the input with besides, such as 0,1,2,4",
    )
    group.add_argument(
        "--reduced-decoding",
        action="store_true",
        help="measure the input also with JPEGs decoded at a fraction of their size",
    )
    group.add_argument("--prefetch", help="batches ahead", **size)
    group.add_argument("--decode-once", action="store_true")


def _numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers from 0 between the commas of a flag."""
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0,1,2,4")
    return tuple(int(word) for word in words)


def _input_table(record: dict[str, Any]) -> str:
    from movq_jax.measuring.input import input_table

    return input_table(record)


if __name__ == "__main__":
    sys.exit(command.run(main))
