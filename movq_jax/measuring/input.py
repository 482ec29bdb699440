"""How fast the input pipeline is, beside what one core does that only decodes.

Other programs slow both down, but not the rates per core, which are by the processor
time that was used.
"""

import dataclasses
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from movq_jax.data import pipeline
from movq_jax.data.images import decode_image
from movq_jax.data.settings import read_settings
from movq_jax.data.sources import open_split
from movq_jax.progress import Progress

_DECODED = 500  # different images that the decoder goes through


def measure_input(
    data_config: Mapping[str, Any], *, batch_size: int, seconds: float, rounds: int
) -> dict[str, Any]:
    """Measure the training pipeline, and decoding alone.

    Args:
        data_config: the `data` section of a config, as a dict.
        batch_size: images a batch.
        seconds: of each of the two in a round, at least.
        rounds: how often they take turns.

    Returns:
        {'config', 'cores', 'decode', 'pipeline'}; the last two with the rates of all
        rounds, in images a second: 'wall' and 'core' (a second of processor time).

    Raises:
        UserError: the section is wrong, or the dataset is not there.
    """
    settings = read_settings(data_config)
    source = open_split(settings, settings.split_train)
    encoded = [source[i]["image"] for i in range(min(len(source), _DECODED))]
    decoded, piped = [], []
    with Progress(2 * rounds, "turns") as progress:
        for _ in range(rounds):
            decoded.append(_rate(lambda: _decode(encoded), seconds))
            progress.advance()
            piped.append(_pipeline_rate(data_config, batch_size, seconds))
            progress.advance()
    return {
        "config": {**data_config, "batch_size": batch_size},
        "cores": usable_cores(),
        "decode": _as_record(decoded),
        "pipeline": _as_record(piped),
    }


def input_table(record: Mapping[str, Any]) -> str:
    """Return the rates of `measure_input` and how they compare, for people."""
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


def usable_cores() -> int:
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


def _pipeline_rate(
    data_config: Mapping[str, Any], batch_size: int, seconds: float
) -> _Rate:
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


def _as_record(rates: Sequence[_Rate]) -> dict[str, list[float]]:
    return {
        "wall": [rate.wall for rate in rates],
        "core": [rate.core for rate in rates],
    }
