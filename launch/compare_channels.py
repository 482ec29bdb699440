"""Trains the rows of configs/channels_small.py alike, and sets them side by side.

    python launch/compare_channels.py --data-dir=DIR --output=runs/channels \
        --tokenizers movq=runs/quantizers/multichannel-0/run \
                     dual=runs/quantizers/dual-0/run --squeezenet=squeezenet_v1.0.npz

DIR holds `pictures` as `movq prepare` left it, with classes; the tokenizers are those
that launch/compare_quantizers.py trained, or others of 32². Their indices of both
splits are cached first, under `<output>/tokens`. A run is a folder of its own,
`<output>/<tokenizer>-<row>-<seed>`. The same command again goes on where it stopped.
The table is printed and written to `<output>/table.md`, every number to
`<output>/table.json`.

All numbers are of the whole evaluation split, with the averaged weights after the last
step; a spread is half of the difference between the largest and the smallest of the
seeds. Bits are those of the likelihood's bound, see `movq_jax.sampling.likelihood`.
SqueezeNet-FD is the Fréchet distance between as many samples as there are images in the
split, of the same classes, and the images: of a few hundred, so a biased estimate that
serves to compare rows of one table and nothing else. `floor` is that of the images'
reconstructions.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from movq_jax.config import load_config
from movq_jax.errors import UserError
from movq_jax.measuring import comparing
from movq_jax.tools import command

CONFIG = "channels_small"
ROWS = ("depth", "independent", "parallel")
COLUMNS = {  # name in result.json -> heading, digits
    "parameters": ("parameters", 0),
    "bits_per_token": ("bits an index", 3),
    "bits_per_image": ("bits an image", 0),
    "steps": ("sampling steps", 0),
    "squeezenet_fd": ("SqueezeNet-FD", 0),
    "floor": ("floor", 0),
    "train_minutes": ("minutes", 1),
}


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then the table.

    Raises:
        UserError: flags are wrong, or a run failed.
    """
    args = _parser().parse_args(argv)
    output = Path(args.output)
    tokenizers = _tokenizers(args.tokenizers)
    jobs = {
        f"{name}-{row}-{seed}": (name, row, seed)
        for seed in comparing.whole_numbers("--seeds", args.seeds)
        for name in tokenizers
        for row in args.rows.split(",")
    }
    features = comparing.squeezenet_features(args.squeezenet)
    for _, row, _ in jobs.values():
        load_config(f"{CONFIG}:{row}")  # a row that is not there is named at once
    comparing.claim(output, {"tokenizers": tokenizers, "steps": args.steps})
    for name, place in tokenizers.items():
        _tokenize(name, place, args, output)
    runs = {
        run: _words(*job, tokenizers[job[0]], args, output) for run, job in jobs.items()
    }
    comparing.train_all(runs, output, jobs=args.jobs)
    _measure(jobs, args, output, features)
    results = comparing.read_results(jobs, output)
    results.sort(key=lambda result: list(tokenizers).index(result["tokenizer"]))
    print(comparing.write_table(results, COLUMNS, output, row="tokens, channels"))


def _tokenizers(words: list[str]) -> dict[str, str]:
    """NAME=PLACE, several times."""
    found = dict(word.partition("=")[::2] for word in words)
    if not all(found) or not all(found.values()):
        raise UserError(f"--tokenizers {' '.join(words)}: give each as NAME=FOLDER")
    return found


def _tokenize(name: str, place: str, args, output: Path) -> None:
    """Cache a tokenizer's indices of both splits; what is there stays."""
    from movq_jax.tools import tokenize

    data = load_config(CONFIG).data
    for split, more in ((data.split_train, ["--flip"]), (data.split_eval, [])):
        folder = output / "tokens" / f"{name}-{split}"
        places = [f"--model={place}", f"--data-dir={args.data_dir}", f"--out={folder}"]
        which = [f"--dataset={data.dataset}", f"--split={split}", "--image-size=32"]
        tokenize.main([*places, *which, *more])


def _words(name: str, row: str, seed: int, place: str, args, output) -> list[str]:
    """What a run is started with."""
    data = load_config(CONFIG).data
    caches = output / "tokens"
    words = [
        f"--config={CONFIG}:{row}",
        f"--config.seed={seed}",
        f"--config.tokenizer={place}",
        f"--config.cache.train={caches / f'{name}-{data.split_train}'}",
        f"--config.cache.eval={caches / f'{name}-{data.split_eval}'}",
        f"--config.data.data_dir={args.data_dir}",
    ]
    return [*words, f"--config.train.num_steps={args.steps}"] if args.steps else words


def _measure(
    jobs: dict[str, tuple[str, str, int]], args, output: Path, features: Any
) -> None:
    """Write `result.json` of the runs that have none yet."""
    left = [run for run in jobs if not (output / run / comparing.RESULT).exists()]
    if not left:
        return
    from movq_jax import compilation_cache

    compilation_cache.enable()
    distances = _Distances(features, args.data_dir)
    for run in left:
        name, row, seed = jobs[run]
        result = {
            "row": f"{name}, {row}",
            "tokenizer": name,
            "seed": seed,
            **_numbers_of(output / run, distances),
        }
        comparing.write_json(output / run / comparing.RESULT, result)
        print(f"{run}: measured", flush=True)


def _numbers_of(
    folder: Path, distances: "_Distances", metrics: dict[str, float] | None = None
) -> dict[str, Any]:
    """The numbers of a finished run: its `metrics`, by default those in its bundle."""
    import movq_jax

    prior = movq_jax.load(folder / "run", micro_batch=32)
    values = prior.protocol["metrics"] if metrics is None else metrics
    return {
        "parameters": prior.num_parameters,
        "bits_per_token": values["val/bits_per_token"],
        "bits_per_image": values["val/bits_per_image"],
        "steps": prior.options.steps,
        "squeezenet_fd": distances.of_samples(prior),
        "floor": distances.of_reconstructions(prior.tokenizer),
        "train_minutes": comparing.read_json(folder / "training.json", {})["minutes"],
        "metrics": values,
    }


class _Distances:
    """Fréchet distances to the images of the evaluation split; None without weights."""

    def __init__(self, features: Any, data_dir: str) -> None:
        self._features = features
        if features is None:
            return
        from movq_jax.data import pipeline

        data = load_config(CONFIG, [f"data.data_dir={data_dir}"]).data
        self._images, self._labels = [], []
        with pipeline.eval_batches(data, batch_size=32) as batches:
            for batch in batches:
                mask = np.asarray(batch["mask"])
                self._images.append(np.asarray(batch["image"])[mask])
                self._labels.append(np.asarray(batch["label"])[mask])
        self._originals = features.statistics(self._images)

    def of_samples(self, prior) -> float | None:
        """Of a sample for each image, of its class."""
        if self._features is None:
            return None
        labels = np.concatenate(self._labels)
        ids = prior.sample(len(labels), labels=labels)
        return self._distance([prior.decode(part) for part in _parts(ids)])

    def of_reconstructions(self, tok) -> float | None:
        """Of what the tokenizer makes of the images themselves."""
        if self._features is None:
            return None
        return self._distance([tok.decode(tok.encode(part)) for part in self._images])

    def _distance(self, batches: list[np.ndarray]) -> float:
        from movq_jax.evaluation.metrics.frechet import frechet

        return frechet(self._features.statistics(batches), self._originals)


def _parts(ids: np.ndarray) -> list[np.ndarray]:
    return [ids[start : start + 32] for start in range(0, len(ids), 32)]


def _parser() -> command.ArgumentParser:
    parser = command.ArgumentParser(prog="compare_channels", description=__doc__)
    parser.add_argument("--data-dir", required=True, help="folder of datasets")
    parser.add_argument("--output", default="runs/channels", help="folder of runs")
    parser.add_argument(
        "--tokenizers",
        nargs="+",
        required=True,
        metavar="NAME=FOLDER",
        help="trained tokenizers, each with a name for the table",
    )
    parser.add_argument(
        "--squeezenet",
        help="weights of the network of SqueezeNet-FD, see README, Perceptual losses; "
        "without, those columns stay empty",
    )
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--rows", default=",".join(ROWS), help="default: all")
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
