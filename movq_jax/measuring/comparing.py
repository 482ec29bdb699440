"""Training runs beside each other, and a table of what they reached.

A comparison is a folder: `<output>/<run>/` of each run, with `training.json` (minutes,
done), `result.json` when it is measured, and `log.txt`; and `settings.json`, `table.md`
and `table.json` of all. What is done is not done again.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

from movq_jax.atomic import replacing
from movq_jax.errors import UserError

RESULT = "result.json"


def squeezenet_features(weights: str | None) -> Any:
    """The network of SqueezeNet-FD, None without weights; asked for before training.

    Raises:
        UserError: the weights cannot be used.
    """
    if weights is None:
        return None
    # Only now: --help need not wait for jax.
    from movq_jax.evaluation.squeezenet_fd import SqueezeNetFeatures

    return SqueezeNetFeatures(weights)


def claim(output: Path, settings: Mapping[str, Any]) -> None:
    """Make `output` the folder of runs with these settings.

    Raises:
        UserError: the runs in it were made differently: they do not belong into one
            table.
    """
    found = read_json(output / "settings.json", settings)
    if found != settings:
        raise UserError(
            f"the runs in {output} were made with {found}, not {settings}: give "
            "another --output, or the same flags"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "settings.json", settings)


def train_all(runs: Mapping[str, Sequence[str]], output: Path, *, jobs: int) -> None:
    """Train what is not trained yet, `jobs` runs at a time, each on a core of its own.

    Args:
        runs: name -> arguments of `python -m movq_jax.main`, without `--workdir`.
        output: the run is `<output>/<name>/run`.
        jobs: how many at a time.

    Raises:
        UserError: a run failed, or there are not so many cores.
    """
    cores: Queue[int | None] = Queue()
    for core in _cores(jobs):
        cores.put(core)

    def work(name: str) -> None:
        core = cores.get()
        try:
            _train(name, runs[name], output / name, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, runs))


def write_table(
    results: Sequence[Mapping[str, Any]],
    columns: Mapping[str, tuple[str, int]],
    output: Path,
    *,
    row: str = "row",
) -> str:
    """Write and return the table: mean and spread of each row over its seeds.

    Args:
        results: of all runs: `row`, and a number or None for each column.
        columns: key of a number -> its heading, and digits after the point.
        output: where table.md and table.json go.
        row: what the rows are called.

    Returns:
        Markdown. The spread is half of the difference of the largest and the smallest.
    """
    lines = [f"| {row} | " + " | ".join(name for name, _ in columns.values()) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for name in dict.fromkeys(result["row"] for result in results):
        of_row = [result for result in results if result["row"] == name]
        cells = [
            _cell([result[key] for result in of_row], digits)
            for key, (_, digits) in columns.items()
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    text = "\n".join(lines) + "\n"
    with replacing(output / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(output / "table.json", results)
    return text


def read_results(names: Iterable[str], output: Path) -> list[dict[str, Any]]:
    """Return the results of runs that are all measured."""
    return [json.loads((output / name / RESULT).read_text()) for name in names]


def read_json(path: Path, otherwise: Any) -> Any:
    """Return what a file of a comparison holds, or `otherwise` where it is missing."""
    return json.loads(path.read_text()) if path.exists() else otherwise


def write_json(path: Path, value: Any) -> None:
    """Write such a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def whole_numbers(flag: str, text: str) -> list[int]:
    """Return the numbers of a flag such as `--seeds=0,1,2`.

    Raises:
        UserError: they are none.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag}={text}: give whole numbers, as 0,1,2") from error


def _cell(values: Sequence[float | None], digits: int) -> str:
    if None in values:
        return "-"
    spread = (max(values) - min(values)) / 2
    text = f"{statistics.mean(values):,.{digits}f}"
    return f"{text} ± {spread:,.{digits}f}" if spread else text


def _cores(jobs: int) -> list[int | None]:
    """A core for each of several jobs, where they can be bound to one."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    allowed = sorted(os.sched_getaffinity(0))
    if jobs > len(allowed):
        raise UserError(f"--jobs={jobs}, but this process may use {len(allowed)} cores")
    return list(allowed[:jobs])


def _train(name: str, words: Sequence[str], folder: Path, core: int | None) -> None:
    """One run in a process of its own, on one core if there are several at a time."""
    training = read_json(folder / "training.json", {"minutes": 0.0, "done": False})
    if training["done"]:
        return
    print(f"{name}: training", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    bound = [] if core is None else ["taskset", "-c", str(core)]
    line = [*bound, sys.executable, "-m", "movq_jax.main", *words]
    line.append(f"--workdir={folder / 'run'}")
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run(line, stdout=log, stderr=subprocess.STDOUT, check=False)
    training["minutes"] += (time.monotonic() - start) / 60
    write_json(folder / "training.json", {**training, "done": done.returncode == 0})
    if done.returncode:
        again = "mend that" if done.returncode == 2 else "the same command goes on"
        raise UserError(
            f"{name} left with exit code {done.returncode}, see "
            f"{folder / 'log.txt'}: {again}"
        )
