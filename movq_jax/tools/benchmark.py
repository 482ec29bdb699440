"""How fast the input pipeline is.

    movq benchmark --part=input --dataset=clothing --image-size=224

Images a second of the whole pipeline (read, decode, crop, mirror, batch), beside what
one core does that only decodes, by turns in one run. Other programs slow both down,
but not the rates per core, which are by the processor time that was used.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

from movq_jax.data import pipeline
from movq_jax.data.images import decode_image
from movq_jax.data.settings import read_settings
from movq_jax.data.sources import open_split
from movq_jax.tools import command

_DECODED = 500  # different images that the decoder goes through


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the flags ask for; print or write it.

    Raises:
        UserError: flags are wrong, or the dataset is not there.
    """
    args = _parser().parse_args(argv)
    record = measure_input(
        _data_config(args),
        batch_size=args.batch_size,
        seconds=args.seconds,
        rounds=args.rounds,
    )
    print(_table(record), file=command.human_stream(args.json))
    command.emit_json(record, args.json)


def measure_input(
    data_config: dict, *, batch_size: int, seconds: float, rounds: int
) -> dict:
    """Measure the training pipeline, and decoding alone.

    Args:
        data_config: the `data` section of a config.
        batch_size: images a batch.
        seconds: of each of the two in a round, at least.
        rounds: how often they take turns.

    Returns:
        {'config', 'cores', 'decode', 'pipeline'}; the last two with the rates of all
        rounds, in images a second: 'wall' and 'core' (a second of processor time).
    """
    settings = read_settings(data_config)
    source = open_split(settings, settings.split_train)
    encoded = [source[i]["image"] for i in range(min(len(source), _DECODED))]
    decoded, piped = [], []
    for _ in range(rounds):
        decoded.append(_rate(lambda: _decode(encoded), seconds))
        piped.append(_pipeline_rate(data_config, batch_size, seconds))
    return {
        "config": {**data_config, "batch_size": batch_size},
        "cores": _cores(),
        "decode": _as_record(decoded),
        "pipeline": _as_record(piped),
    }


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class _Rate:
    """Images a second of wall time, and of processor time."""

    wall: float
    core: float


def _rate(work: Callable[[], int], seconds: float) -> _Rate:
    """Call `work`, which returns a number of images, for some time."""
    images, start, start_core = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        images += work()
    core = time.process_time() - start_core
    return _Rate(images / (time.perf_counter() - start), images / core)


def _decode(encoded: Sequence[bytes]) -> int:
    for data in encoded:
        decode_image(data)
    return len(encoded)


def _pipeline_rate(data_config: dict, batch_size: int, seconds: float) -> _Rate:
    threads = set(threading.enumerate())
    with pipeline.train_batches(
        data_config, seed=0, batch_size=batch_size, start=0
    ) as batches:
        # What was made before anyone looked at the clock does not count.
        for _ in range(data_config["prefetch"] + 1):
            next(batches)
        rate = _rate(lambda: len(next(batches)["image"]), seconds)
    # They finish the batches they are at: not in the decoder's time.
    for thread in set(threading.enumerate()) - threads:
        thread.join()
    return rate


def _as_record(rates: Sequence[_Rate]) -> dict:
    return {
        "wall": [rate.wall for rate in rates],
        "core": [rate.core for rate in rates],
    }


def _table(record: dict) -> str:
    """Return the rates and how they compare, for people."""
    lines = ["images a second     median   least    most  per core"]
    core = {}
    for name, label in (("decode", "decode, one core"), ("pipeline", "pipeline")):
        wall = record[name]["wall"]
        core[name] = statistics.median(record[name]["core"])
        lines.append(
            f"{label:<18}{statistics.median(wall):>8,.0f}{min(wall):>8,.0f}"
            f"{max(wall):>8,.0f}{core[name]:>10,.0f}"
        )
    lines.append(
        f"decoding is {core['pipeline'] / core['decode']:.0%} of the pipeline's work; "
        f"{record['cores']} cores, shared with whatever else runs"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = command.ArgumentParser(prog="movq benchmark", description=__doc__)
    parser.add_argument("--part", choices=["input"], default="input")
    parser.add_argument("--dataset", required=True, help="a prepared dataset")
    parser.add_argument("--split", default="train")
    parser.add_argument(
        "--data-dir",
        default="",
        metavar="DIR",
        help="folder of datasets (default: $TFDS_DATA_DIR, ~/tensorflow_datasets)",
    )
    size = {"type": command.positive_int, "metavar": "N"}
    parser.add_argument("--image-size", default=256, **size)
    parser.add_argument(
        "--crop", default="random", help="random, center or none (default: random)"
    )
    parser.add_argument(
        "--resize", default="none", help="none, short_side or squash (default: none)"
    )
    parser.add_argument("--batch-size", default=64, **size)
    parser.add_argument("--num-threads", default=2 * _cores(), **size)
    parser.add_argument("--prefetch", default=8, help="batches ahead", **size)
    parser.add_argument("--decode-once", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--rounds", default=5, **size)
    command.add_json_flag(parser)
    return parser


def _data_config(args: argparse.Namespace) -> dict:
    resize, crop = {"name": args.resize}, {"name": args.crop}
    return {
        "dataset": args.dataset,
        "split_train": args.split,
        "split_eval": args.split,
        "data_dir": args.data_dir,
        "image_size": args.image_size,
        "train": {
            "resize": resize,
            "crop": crop,
            "flip": True,
            "permute_channels": False,
        },
        "eval": {"resize": resize, "crop": crop, "image_size": 0},
        "num_threads": args.num_threads,
        "prefetch": args.prefetch,
        "decode_once": args.decode_once,
    }


if __name__ == "__main__":
    sys.exit(command.run(main))
