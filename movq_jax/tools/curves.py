"""Draw the numbers of runs over their steps, several runs beside each other.

    movq curves --run papers=runs/p0,runs/p1 --run stable=runs/s0,runs/s1 \\
        --metrics=val/psnr,train/adv_weight --mark=500 --output=curves.png

Each label is one colour, with the folders of its runs, such as one for each seed; a
label that is given again gets more of them. Without a label the folder's name is it,
with as much of the path as tells it from the others. Every run is a thin line, their
median a thick one. Needs matplotlib: the extra `plots`.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from movq_jax.atomic import replacing
from movq_jax.errors import UserError
from movq_jax.evaluation.plotting import figure_class
from movq_jax.families import nearest
from movq_jax.tools import command

COLUMNS = 2

_LAST_STEP = 10**15  # what is drawn is a float
_LARGEST = 1e300

Curve = dict[int, float]  # step -> value
Groups = dict[str, list[dict[str, Curve]]]  # label -> runs -> metric -> curve


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, draw, and print where the picture is.

    Raises:
        UserError: a run or a metric is not there, or matplotlib is not installed.
    """
    args = _parser().parse_args(argv)
    groups = {
        label: [read_curves(run) for run in runs]
        for label, runs in label_runs(args.run).items()
    }
    metrics = [name for name in args.metrics.split(",") if name]
    _check_metrics(groups, metrics)
    draw(groups, metrics, Path(args.output), mark=args.mark)
    print(f"the curves are in {args.output}", file=command.human_stream(args.json))
    command.emit_json(_medians(groups, metrics), args.json)


def read_curves(run: str) -> dict[str, Curve]:
    """Return metric -> step -> value of a run's folder; null and text are left out.

    Raises:
        UserError: there are no metrics.
    """
    # Only now: it imports jax, and a typing mistake should be answered at once.
    from movq_jax.training.log_writers import METRICS_FILE, read_log

    path = Path(run) / METRICS_FILE
    if not path.is_file():
        raise UserError(f"{path} is not there: {run} is not the folder of a run")
    try:
        records = read_log(run, _LAST_STEP)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    curves: dict[str, Curve] = {}
    for record in records:
        step = record.pop("step")
        for name, value in record.items():
            if isinstance(value, (int, float)) and abs(value) <= _LARGEST:
                curves.setdefault(name, {})[step] = value
    return curves


def label_runs(
    given: Sequence[tuple[str | None, list[str]]],
) -> dict[str, list[str]]:
    """Return label -> folders, in the order of the first of each label.

    Args:
        given: label and folders; None instead of a label: the first folder's name,
            with as many folders above it as make a label that nothing else has.
    """
    explicit = {label for label, _ in given if label is not None}
    unnamed = {Path(os.path.abspath(runs[0])) for label, runs in given if label is None}
    labelled: dict[str, list[str]] = {}
    for label, runs in given:
        if label is None:
            path = Path(os.path.abspath(runs[0]))
            taken = [_ends_of(other) for other in unnamed - {path}]
            label = next(
                (
                    end
                    for end in _ends_of(path)
                    if end not in explicit and not any(end in ends for ends in taken)
                ),
                str(path),
            )
        labelled.setdefault(label, []).extend(runs)
    return labelled


def _ends_of(path: Path) -> list[str]:
    """Return a, parent/a, ... of an absolute path."""
    return ["/".join(path.parts[-n:]) for n in range(1, len(path.parts))]


def median_curve(curves: Sequence[Curve]) -> Curve:
    """Return the median at the steps that all `curves` have."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {step: statistics.median(curve[step] for curve in curves) for step in steps}


def draw(
    groups: Groups, metrics: Sequence[str], path: Path, *, mark: int | None = None
) -> None:
    """Write a PNG with one panel for each metric.

    Args:
        mark: step at which a vertical line is drawn.

    Raises:
        UserError: matplotlib is not installed, or the place cannot be written.
    """
    rows = math.ceil(len(metrics) / COLUMNS)
    figure = figure_class()(figsize=(5.2 * COLUMNS, 2.9 * rows), layout="constrained")
    for number, name in enumerate(metrics):
        axes = figure.add_subplot(rows, min(COLUMNS, len(metrics)), number + 1)
        for color, (label, runs) in enumerate(groups.items()):
            curves = [run[name] for run in runs if name in run]
            style, thin = {"color": f"C{color}"}, {"linewidth": 0.7, "alpha": 0.5}
            for curve in curves:
                axes.plot(*_xy(curve), **style, **thin, marker=_marker(curve))
            if curves:
                middle = median_curve(curves)
                axes.plot(
                    *_xy(middle),
                    **style,
                    linewidth=2,
                    marker=_marker(middle),
                    label=label,
                )
        if mark is not None:
            axes.axvline(mark, color="0.6", linestyle="--", linewidth=1)
        axes.set_title(name, fontsize=10, loc="left")
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        if number == 0:
            axes.legend(frameon=False, fontsize=9)
    for axes in figure.axes[-COLUMNS:]:
        axes.set_xlabel("step", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(str(temporary), format="png", dpi=110)


def _xy(curve: Curve) -> tuple[list[int], list[float]]:
    steps = sorted(curve)
    return steps, [curve[step] for step in steps]


def _marker(curve: Curve) -> str:
    """Return a dot where a line would not be seen."""
    return "o" if len(curve) == 1 else ""


def _check_metrics(groups: Groups, metrics: Sequence[str]) -> None:
    known = {name for runs in groups.values() for run in runs for name in run}
    if not metrics:
        raise UserError(f"--metrics names none{nearest('', known)}")
    for name in metrics:
        if name not in known:
            raise UserError(f"no run has the metric {name!r}{nearest(name, known)}")


def _medians(groups: Groups, metrics: Sequence[str]) -> dict:
    record = {}
    for label, runs in groups.items():
        present = {m: [run[m] for run in runs if m in run] for m in metrics}
        record[label] = {m: median_curve(c) for m, c in present.items() if c}
    return record


def _group(text: str) -> tuple[str | None, list[str]]:
    label, equals, runs = text.rpartition("=")
    folders = [run for run in runs.split(",") if run]
    if not folders:
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL=DIR,DIR...")
    return (label if equals else None), folders


def _parser() -> argparse.ArgumentParser:
    parser = command.ArgumentParser(prog="movq curves", description=__doc__)
    parser.add_argument(
        "--run",
        action="append",
        type=_group,
        required=True,
        metavar="LABEL=DIR,...",
        help="folders of runs that belong together; may be given several times, with "
        "the same label, too",
    )
    parser.add_argument(
        "--metrics",
        default="val/psnr,train/loss_rec",
        help="as they are called in metrics.jsonl (default: val/psnr,train/loss_rec)",
    )
    parser.add_argument("--mark", type=int, metavar="STEP", help="draw a line there")
    parser.add_argument("--output", required=True, metavar="FILE", help="a PNG")
    command.add_json_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
