"""Trains the rows of configs/quantizers_small.py alike, and sets them side by side.

    python launch/compare_quantizers.py --data-dir=DIR --output=runs/quantizers \
        --squeezenet=squeezenet_v1.0.npz

DIR holds `pictures` as `movq prepare` left it. A run is a folder of its own,
`<output>/<row>-<seed>`, with `result.json` when it is done. The same command again goes
on where it stopped: finished runs are not repeated, one that was interrupted resumes.
The table is printed and written to `<output>/table.md`, every number to
`<output>/table.json`.

All numbers are of the whole evaluation split, with the averaged weights after the last
step; a spread is half of the difference between the largest and the smallest of the
seeds. Usage and perplexity are those of the book that is used least. SqueezeNet-FD is
the Fréchet distance of the 512 means of fire9: of a few hundred images, so a biased
estimate that serves to compare rows of one table and nothing else.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np

from movq_jax.atomic import replacing
from movq_jax.config import load_config
from movq_jax.errors import UserError
from movq_jax.tools import command

CONFIG = "quantizers_small"
ROWS = ("vq", "multichannel", "dual", "product", "product_ema", "dualmovq")
COLUMNS = {  # name in result.json -> heading, digits
    "bits_per_position": ("bits a position", 0),
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "squeezenet_fd": ("SqueezeNet-FD", 0),
    "quantisation_mse": ("quantisation MSE", 4),
    "usage": ("usage", 2),
    "perplexity": ("perplexity", 0),
    "train_minutes": ("minutes", 1),
}


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then the table.

    Raises:
        UserError: flags are wrong, or a run failed.
    """
    args = _parser().parse_args(argv)
    output = Path(args.output)
    jobs = [
        (row, seed) for seed in _numbers(args.seeds) for row in args.rows.split(",")
    ]
    features = _features(args.squeezenet)
    for row, _ in jobs:
        load_config(_spec(row, args))  # a row that is not there is named at once
    _claim(output, {"arg": args.arg, "steps": args.steps})
    cores: Queue[int | None] = Queue()
    for core in _cores(args.jobs):
        cores.put(core)

    def work(job: tuple[str, int]) -> None:
        core = cores.get()
        try:
            _train(*job, args, output, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(work, jobs))
    _measure(jobs, args, output, features)
    _table(jobs, args, output)


def _features(weights: str | None) -> Any:
    """The network of SqueezeNet-FD: before hours of training, not after."""
    if weights is None:
        return None
    from movq_jax.evaluation.squeezenet_fd import SqueezeNetFeatures

    return SqueezeNetFeatures(weights)


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Runs that were made differently do not belong into one table."""
    found = _read(output / "settings.json", settings)
    if found != settings:
        raise UserError(
            f"the runs in {output} were made with {found}, not {settings}: give "
            "another --output, or the same --arg and --steps"
        )
    output.mkdir(parents=True, exist_ok=True)
    _write(output / "settings.json", settings)


def _cores(jobs: int) -> list[int | None]:
    """A core for each of several jobs, where they can be bound to one."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    allowed = sorted(os.sched_getaffinity(0))
    if jobs > len(allowed):
        raise UserError(f"--jobs={jobs}, but this process may use {len(allowed)} cores")
    return list(allowed[:jobs])


def _train(row: str, seed: int, args, output: Path, core: int | None) -> None:
    """One run in a process of its own, on one core if there are several at a time."""
    folder = output / f"{row}-{seed}"
    training = _read(folder / "training.json", {"minutes": 0.0, "done": False})
    if training["done"]:
        return
    print(f"{folder.name}: training", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    words = [
        *(sys.executable, "-m", "movq_jax.main", f"--config={_spec(row, args)}"),
        *(f"--config.seed={seed}", f"--config.data.data_dir={args.data_dir}"),
        f"--workdir={folder / 'run'}",
    ]
    if args.steps:
        words.append(f"--config.train.num_steps={args.steps}")
    if core is not None:
        words = ["taskset", "-c", str(core), *words]
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, check=False)
    training["minutes"] += (time.monotonic() - start) / 60
    _write(folder / "training.json", {**training, "done": done.returncode == 0})
    if done.returncode:
        again = "mend that" if done.returncode == 2 else "the same command goes on"
        raise UserError(
            f"{folder.name} left with exit code {done.returncode}, see "
            f"{folder / 'log.txt'}: {again}"
        )


def _measure(jobs: list[tuple[str, int]], args, output: Path, features) -> None:
    """Writes `result.json` of the runs that have none yet."""
    folders = {job: output / f"{job[0]}-{job[1]}" for job in jobs}
    left = [job for job in jobs if not (folders[job] / "result.json").exists()]
    if not left:
        return
    from movq_jax import compilation_cache
    from movq_jax.data import pipeline

    compilation_cache.enable()
    # Every row has the same data.
    data = load_config(CONFIG, [f"data.data_dir={args.data_dir}"]).data
    with pipeline.eval_batches(data, batch_size=32) as batches:
        images = [np.asarray(b["image"])[np.asarray(b["mask"])] for b in batches]
    originals = features and _statistics(features, images)
    for row, seed in left:
        folder = folders[row, seed]
        result = {"row": row, "seed": seed, "config": _spec(row, args)}
        result |= _numbers_of(folder, images, features, originals)
        _write(folder / "result.json", result)
        print(f"{folder.name}: measured", flush=True)


def _numbers_of(folder: Path, images, features, originals) -> dict[str, Any]:
    """The numbers of a finished run, from its model and what its bundle tells of it."""
    import movq_jax
    from movq_jax.evaluation.frechet import frechet
    from movq_jax.evaluation.rows import measure

    tok = movq_jax.load(folder / "run", micro_batch=32)
    rebuilt = [tok.decode(tok.encode(batch)) for batch in images]
    rows = [
        measure("", *pair)
        for pair in zip(np.concatenate(images), np.concatenate(rebuilt), strict=True)
    ]
    values = tok.protocol["metrics"]
    return {
        "fingerprint": tok.fingerprint,
        "steps": int(tok.protocol["step"]),
        "images": len(rows),
        "bits_per_position": tok.bits_per_position,
        "psnr": float(np.mean([row.psnr for row in rows])),
        "ssim": float(np.mean([row.ssim for row in rows])),
        "squeezenet_fd": features
        and frechet(_statistics(features, rebuilt), originals),
        "quantisation_mse": values["val/quantisation_mse"],
        "usage": _least(values, "_usage"),
        "perplexity": _least(values, "_perplexity"),
        "train_minutes": _read(folder / "training.json", {})["minutes"],
        "evaluation": values,
    }


def _statistics(features, batches) -> Any:
    from movq_jax.evaluation.frechet import FeatureStatistics
    from movq_jax.evaluation.squeezenet_fd import WIDTH

    found = FeatureStatistics(WIDTH)
    for batch in batches:
        found.update(features(batch))
    return found


def _table(jobs, args, output: Path) -> None:
    """Mean and spread (half of largest - smallest) of each row over its seeds."""
    results = [
        json.loads((output / f"{row}-{seed}" / "result.json").read_text())
        for row, seed in jobs
    ]
    lines = ["| row | " + " | ".join(name for name, _ in COLUMNS.values()) + " |"]
    lines.append("|---|" + "---|" * len(COLUMNS))
    for row in args.rows.split(","):
        cells = [row]
        for key, (_, digits) in COLUMNS.items():
            values = [result[key] for result in results if result["row"] == row]
            if None in values:
                cells.append("-")
                continue
            spread = (max(values) - min(values)) / 2
            text = f"{statistics.mean(values):,.{digits}f}"
            cells.append(f"{text} ± {spread:,.{digits}f}" if spread else text)
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    with replacing(output / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    _write(output / "table.json", results)
    print(text)


def _least(values: dict[str, float], ending: str) -> float:
    return min(value for name, value in values.items() if name.endswith(ending))


def _spec(row: str, args) -> str:
    return f"{CONFIG}:{row}" + (f",{args.arg}" if args.arg else "")


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else otherwise


def _write(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds={text}: give whole numbers, as 0,1,2") from error


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="compare_quantizers", description=__doc__)
    parser.add_argument("--data-dir", required=True, help="folder of datasets")
    parser.add_argument("--output", default="runs/quantizers", help="folder of runs")
    parser.add_argument(
        "--squeezenet",
        help="weights of the network of SqueezeNet-FD, see README, Perceptual losses; "
        "without, that column stays empty",
    )
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--rows", default=",".join(ROWS), help="default: all")
    parser.add_argument("--arg", default="", help="of the config besides: kmeans")
    parser.add_argument(
        "--steps", type=command.positive_int, help="default: the config's"
    )
    parser.add_argument(
        "--jobs",
        type=command.positive_int,
        default=1,
        help="runs at a time, each on a core of its own (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
