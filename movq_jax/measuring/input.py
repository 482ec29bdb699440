"""How fast the input pipeline is, beside what one core does that only decodes.

Other programs slow both down, but not the rates per core, which are by the processor
time that was used.
"""

import dataclasses
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from movq_jax.cores import usable_cores
from movq_jax.data import pipeline
from movq_jax.data.images import decode_image
from movq_jax.data.settings import read_settings
from movq_jax.data.sources import open_split
from movq_jax.progress import Progress

_DECODED = 500  # different images that the decoder goes through


def measure_input(
    data_config: Mapping[str, Any],
    *,
    batch_size: int,
    seconds: float,
    rounds: int,
    workers: Sequence[int] = (),
    reduced_decoding: bool = False,
) -> dict[str, Any]:
    """Measure the training pipeline, and decoding alone.

    Args:
        data_config: the `data` section of a config, as a dict.
        batch_size: images a batch.
        seconds: of each of them in a round, at least.
        rounds: how often they take turns.
        workers: numbers of worker processes to measure the pipeline with, besides the
            config's.
        reduced_decoding: measure each also with `train.reduced_decoding`.

    Returns:
        {'config', 'cores', 'decode', 'pipeline', 'variants'}: of decoding, of the
        pipeline as configured, and of each variant of it (with its 'num_workers' and
        'reduced_decoding'; the configured one is the first) the rates of all rounds,
        in images a second: 'wall' and 'core' (a second of processor time).

    Raises:
        UserError: the section is wrong, or the dataset is not there.
    """
    settings = read_settings(data_config)
    source = open_split(settings, settings.split_train)
    encoded = [source[i]["image"] for i in range(min(len(source), _DECODED))]
    variants = _variants(data_config, workers, reduced_decoding)
    decoded, piped = [], [[] for _ in variants]
    with Progress((1 + len(variants)) * rounds, "turns") as progress:
        for _ in range(rounds):
            decoded.append(_rate(lambda: _decode(encoded), seconds))
            progress.advance()
            for variant, rates in zip(variants, piped, strict=True):
                rates.append(_pipeline_rate(variant, batch_size, seconds))
                progress.advance()
    return {
        "config": {**data_config, "batch_size": batch_size},
        "cores": usable_cores(),
        "decode": _as_record(decoded),
        "pipeline": _as_record(piped[0]),
        "variants": [
            {
                "num_workers": variant["num_workers"],
                "reduced_decoding": variant["train"]["reduced_decoding"],
                **_as_record(rates),
            }
            for variant, rates in zip(variants, piped, strict=True)
        ],
    }


def input_table(record: Mapping[str, Any]) -> str:
    """Return the rates of `measure_input` and how they compare, for people."""
    rows = {"decode, one core": record["decode"]}
    rows |= {_label(variant): variant for variant in record["variants"]}
    width = max(map(len, rows))
    lines = [f"{'images a second':<{width}}  median   least    most  per core"]
    for label, rates in rows.items():
        wall, core = rates["wall"], statistics.median(rates["core"])
        lines.append(
            f"{label:<{width}}{statistics.median(wall):>8,.0f}{min(wall):>8,.0f}"
            f"{max(wall):>8,.0f}{core:>10,.0f}"
        )
    core = {n: statistics.median(record[n]["core"]) for n in ("decode", "pipeline")}
    share = (
        f"decoding is {core['pipeline'] / core['decode']:.0%} of the pipeline's work; "
    )
    data = record["config"]
    if data["decode_once"] or data["train"].get("reduced_decoding"):
        share = ""  # the pipeline decodes less than all of it
    lines.append(f"{share}{record['cores']} cores, shared with whatever else runs")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Rate:
    """Images a second of wall time, and of processor time."""

    wall: float
    core: float


def _variants(
    data_config: Mapping[str, Any], workers: Sequence[int], reduced_decoding: bool
) -> list[dict[str, Any]]:
    """Return the section, and the others that are to be measured, each once."""
    train = data_config["train"]
    numbers = dict.fromkeys([data_config["num_workers"], *workers])
    reduced = dict.fromkeys([train["reduced_decoding"], *[True] * reduced_decoding])
    return [
        {**data_config, "num_workers": n, "train": {**train, "reduced_decoding": r}}
        for r, n in itertools.product(reduced, numbers)
    ]


def _label(variant: Mapping[str, Any]) -> str:
    count = variant["num_workers"]
    label = "pipeline"
    if count:
        label += f", {count} {'worker' if count == 1 else 'workers'}"
    return label + (", reduced decoding" if variant["reduced_decoding"] else "")


def _rate(
    work: Callable[[], int],
    seconds: float,
    others: Callable[[], float] = lambda: 0.0,
) -> _Rate:
    """Call `work`, which returns a number of images, for some time.

    `others` returns the processor time of other processes that have a part in it.
    """
    images, start, start_core = 0, time.perf_counter(), time.process_time() + others()
    while time.perf_counter() - start < seconds:
        images += work()
    core = time.process_time() + others() - start_core
    return _Rate(images / (time.perf_counter() - start), images / core)


def _decode(encoded: Sequence[bytes]) -> int:
    for data in encoded:
        decode_image(data)
    return len(encoded)


def _pipeline_rate(
    data_config: Mapping[str, Any], batch_size: int, seconds: float
) -> _Rate:
    threads = set(threading.enumerate())
    with pipeline.train_batches(
        data_config, seed=0, batch_size=batch_size, start=0
    ) as batches:
        # What was made before anyone looked at the clock does not count.
        ahead = max(data_config["prefetch"], 2 * data_config["num_workers"])
        for _ in range(ahead + 1):
            next(batches)
        rate = _rate(
            lambda: len(next(batches)["image"]),
            seconds,
            lambda: batches.process_seconds,
        )
    # They finish the batches they are at: not in the decoder's time.
    for thread in set(threading.enumerate()) - threads:
        thread.join()
    return rate


def _as_record(rates: Sequence[_Rate]) -> dict[str, list[float]]:
    return {
        "wall": [rate.wall for rate in rates],
        "core": [rate.core for rate in rates],
    }
