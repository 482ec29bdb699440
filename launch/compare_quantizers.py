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

import sys
from pathlib import Path
from typing import Any

import numpy as np

from movq_jax.config import load_config
from movq_jax.measuring import comparing
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
        (row, seed)
        for seed in comparing.whole_numbers("--seeds", args.seeds)
        for row in args.rows.split(",")
    ]
    features = comparing.squeezenet_features(args.squeezenet)
    for row, _ in jobs:
        load_config(_spec(row, args))  # a row that is not there is named at once
    comparing.claim(output, {"arg": args.arg, "steps": args.steps})
    runs = {f"{row}-{seed}": _words(row, seed, args) for row, seed in jobs}
    comparing.train_all(runs, output, jobs=args.jobs)
    _measure(jobs, args, output, features)
    results = comparing.read_results(runs, output)
    print(comparing.write_table(results, COLUMNS, output))


def _words(row: str, seed: int, args) -> list[str]:
    """What a run is started with."""
    words = [
        f"--config={_spec(row, args)}",
        f"--config.seed={seed}",
        f"--config.data.data_dir={args.data_dir}",
    ]
    return [*words, f"--config.train.num_steps={args.steps}"] if args.steps else words


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
    originals = features and features.statistics(images)
    for row, seed in left:
        folder = folders[row, seed]
        result = {"row": row, "seed": seed, "config": _spec(row, args)}
        result |= _numbers_of(folder, images, features, originals)
        comparing.write_json(folder / "result.json", result)
        print(f"{folder.name}: measured", flush=True)


def _numbers_of(folder: Path, images, features, originals) -> dict[str, Any]:
    """The numbers of a finished run, from its model and what its bundle tells of it."""
    import movq_jax
    from movq_jax.evaluation.metrics.frechet import frechet
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
        "squeezenet_fd": features and frechet(features.statistics(rebuilt), originals),
        "quantisation_mse": values["val/quantisation_mse"],
        "usage": _least(values, "_usage"),
        "perplexity": _least(values, "_perplexity"),
        "train_minutes": comparing.read_json(folder / "training.json", {})["minutes"],
        "evaluation": values,
    }


def _least(values: dict[str, float], ending: str) -> float:
    return min(value for name, value in values.items() if name.endswith(ending))


def _spec(row: str, args) -> str:
    return f"{CONFIG}:{row}" + (f",{args.arg}" if args.arg else "")


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
