"""Judge images, a tokenizer or a prior: PSNR to FID, by a protocol with a name.

    movq evaluate --images=out/reconstructions --reference=photos/ --image-size=whole
    movq evaluate --model=runs/a --dataset=coco/2017 --metrics=psnr,lpips_vgg,fid
    movq evaluate --model=runs/p --dataset=coco/2017 --num=50000 --metrics=fid,is
    movq evaluate --images=samples.npz --reference=VIRTUAL_imagenet256_labeled.npz \\
        --protocol=adm --metrics=fid,sfid,is,precision,recall

prints a table and, with --json and --html, writes a record and a page with the worst
images. Both carry the protocol: number of images, resize and crop, rounding, network
and its weights, reference. docs/evaluation.md has the protocols and what each metric
is.

Metrics of pairs match folders and datasets by the files' names, npz files by their
order. Images are resized and cut as the protocol says, but for --image-size=whole. A
tokenizer's images are compared with what it got. `nll` is of a prior: bits a token of a
split, as in training. Images go by one batch at a time; but kid, precision, recall,
density and coverage keep 8 kB of each. An image that cannot be used is named and left
out, and the exit code is 4.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import movq_jax
from movq_jax.atomic import write_text
from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools import command, evaluate_flags, image_data, sampling_flags
from movq_jax.tools.feeding import Refusals

WORST = 6  # images of a metric on the page


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: a flag or a path is wrong, weights are missing, or a metric could
            not be computed; what could be is printed and written before.
        InputsRefused: some images could not be used; the others are judged.
    """
    args = evaluate_flags.make_parser(__doc__).parse_args(argv)
    evaluate_flags.check(args)
    # Only now: networks are behind all that, and --help need not wait for jax.
    from movq_jax.evaluation.networks import Networks
    from movq_jax.tools.evaluate_plan import make_plan

    plan = make_plan(args)
    networks = Networks(
        inception=args.inception,
        squeezenet=args.squeezenet,
        lpips=args.lpips,
        micro_batch=args.micro_batch,
    )
    suites = _suites(args, plan, networks)
    refusals = Refusals(total=_total(plan))
    with Progress(refusals.total, "images") as progress:
        if plan.source is not None:
            _judge(plan, suites, refusals, progress)
        nll = _likelihood(args, plan, refusals, progress) if plan.split else None
    if suites and not suites[0].count:
        refusals.raise_if_any()
        raise UserError(f"there is no image in {plan.source.name}")
    records = _records(args, plan, suites, networks, nll, refusals)
    whole = records[0] if len(records) == 1 else _together(records)
    try:
        command.emit_json(whole, args.json)
    finally:  # what took long is seen, even where it cannot be written
        print(_text(records), file=command.human_stream(args.json), flush=True)
    _write_files(args, suites, records, networks)
    _raise_if_missing(records)
    refusals.raise_if_any()


def _write_files(
    args: argparse.Namespace,
    suites: Sequence[Any],
    records: Sequence[dict[str, Any]],
    networks: Any,
) -> None:
    """Write all but the record and the table, which come first."""
    from movq_jax.evaluation import evaluation_page, per_image, reference_files
    from movq_jax.evaluation.metric_text import images_text

    places = evaluate_flags.outputs(args)
    if args.per_image:
        per_image.write_csv(places["--per-image"], *suites[0].per_image())
    if args.save_statistics:
        reference_files.write_statistics(
            places["--save-statistics"],
            suites[0].statistics,
            protocol=suites[0].protocol.as_record(),
            networks=networks.fingerprints,
        )
        print(
            f"the statistics of {images_text(suites[0].count)} are in "
            f"{places['--save-statistics']}",
            file=command.human_stream(args.json),
        )
    if args.html:
        worst = [suite.worst() for suite in suites] or [{}]
        write_text(places["--html"], evaluation_page.make_html(records, worst))


def _suites(args: argparse.Namespace, plan: Any, networks: Any) -> list[Any]:
    """One a protocol, with all networks loaded: missing weights are met at once."""
    from movq_jax.evaluation.metric_table import PRIOR, of_kind
    from movq_jax.evaluation.suite import Suite
    from movq_jax.evaluation.suite_checks import check_counts

    if plan.source is None:
        return []
    metrics = [m for m in plan.metrics if m not in of_kind(plan.metrics, PRIOR)]
    others = len(plan.reference) if plan.reference is not None else None
    for protocol in plan.protocols:
        check_counts(
            metrics,
            len(plan.source),
            others,
            is_variant=protocol.is_variant,
            kid_subset=args.kid_subset,
        )
    nothing = not plan.partnered and plan.reference is None and plan.file is None
    suites = [
        Suite(
            protocol,
            metrics,
            networks,
            reference=plan.file,
            statistics_only=nothing,
            kid_subset=args.kid_subset,
            worst=WORST if args.html else 0,
        )
        for protocol in plan.protocols
    ]
    if not any(suite.needs_reference_images for suite in suites):
        plan.reference = None  # a file's statistics do
    return suites


def _total(plan: Any) -> int:
    sets = (plan.source, plan.reference, plan.split)
    return sum(len(images) for images in sets if images is not None)


def _judge(plan: Any, suites: Sequence[Any], refusals: Refusals, progress: Any) -> None:
    """Show all images to all suites; each is read once."""
    from movq_jax.evaluation.image_sets import in_chunks
    from movq_jax.tools.evaluate_sources import CHUNK

    def refuse(where: str, reason: str) -> None:
        refusals.add(where, reason, progress)

    for chunk in plan.source.chunks(refuse):
        for suite in suites:
            judged = plan.source.judge(chunk, suite.protocol, refuse)
            _show(suite, judged, partnered=plan.partnered, other=plan.reference)
        progress.advance(len(judged))
    if plan.reference is None:
        return
    wanting = [suite for suite in suites if suite.needs_reference_images]
    readable = (item for item in plan.reference.items(refuse) if item is not None)
    for items in in_chunks(readable, CHUNK):
        for suite in wanting:
            protocol = suite.protocol
            enlarged = sum(protocol.enlarges(item.image) for item in items)
            plan.source.enlarged[protocol.name] += enlarged
            suite.add_reference([protocol.prepare(item.image) for item in items])
        progress.advance(len(items))


def _show(suite: Any, judged: Sequence[Any], *, partnered: bool, other: Any) -> None:
    """Give a suite a batch; where there is no other reference, of its partners, too."""
    if not judged:
        return
    names, images, partners = (list(part) for part in zip(*judged, strict=True))
    suite.add(names, images, partners if partnered else None)
    if partnered and other is None and suite.needs_reference_images:
        suite.add_reference(partners)


def _likelihood(
    args: argparse.Namespace, plan: Any, refusals: Refusals, progress: Any
) -> dict[str, Any]:
    from movq_jax.tools.evaluate_likelihood import likelihood

    config = image_data.run_config(args.model)
    size = image_data.WHOLE if args.image_size == 0 else args.image_size
    transform, said = image_data.make_transform(size, plan.model, config)

    def prepare(image: np.ndarray) -> np.ndarray:
        # As everywhere, evaluation draws nothing.
        return transform(image, np.random.default_rng(0)) if transform else image

    record = likelihood(
        plan.model,
        plan.split,
        prepare,
        config=config,
        refuse=lambda where, reason: refusals.add(where, reason, progress),
        advance=progress.advance,
    )
    return {**record, "preprocessing": said}


def _records(
    args: argparse.Namespace,
    plan: Any,
    suites: Sequence[Any],
    networks: Any,
    nll: dict[str, Any] | None,
    refusals: Refusals,
) -> list[dict[str, Any]]:
    """Return one a protocol: the numbers, and all that they depend on."""
    records = []
    # Of nll alone there is one without a protocol: the run prepared its images.
    for suite in suites or [None]:
        metrics = suite.compute() if suite else {}
        if nll is not None:
            metrics["nll"] = nll
        records.append(
            {
                "tool": "evaluate",
                "version": movq_jax.__version__,
                "protocol": suite.protocol.as_record() if suite else None,
                "model": _model_record(args, plan),
                "num_images": suite.count if suite else nll["count"],
                "images": {"name": (plan.source or plan.split).name},
                "reference": _reference_record(plan, suite) if suite else {},
                "networks": dict(networks.fingerprints),
                "metrics": {m: metrics[m] for m in plan.metrics if m in metrics},
                "warnings": _warnings(plan, suite) if suite else [],
                "refused": refusals.as_records(),
            }
        )
    return records


def _warnings(plan: Any, suite: Any) -> list[str]:
    from movq_jax.evaluation.metric_text import DIFFERENT_PROTOCOLS, images_text

    protocol = suite.protocol
    said = [*suite.warnings(), *plan.notes]
    enlarged, resized = (
        counts[protocol.name] for counts in (plan.source.enlarged, plan.source.resized)
    )
    if resized:
        pairs = "1 pair was" if resized == 1 else f"{resized:,} pairs were"
        said.append(
            f"{pairs} resized or cut to {protocol.size} x {protocol.size}: "
            "--image-size=whole compares images as they are, as `movq reconstruct` does"
        )
    if enlarged:
        were = "was" if enlarged == 1 else "were"
        said.append(
            f"{images_text(enlarged)} {were} smaller than {protocol.size} pixels and "
            "enlarged: --image-size=whole takes images as they are"
        )
    if len(plan.protocols) > 1:
        said.append(DIFFERENT_PROTOCOLS)
    return said


def _model_record(args: argparse.Namespace, plan: Any) -> dict[str, Any] | None:
    if plan.model is None:
        return None
    record = {
        "path": args.model,
        "fingerprint": plan.model.fingerprint,
        "micro_batch": plan.model.micro_batch,
        "protocol": plan.model.protocol,
    }
    if plan.is_prior and args.num is not None:
        chosen = plan.model.chosen(**sampling_flags.options(args))
        record["sampling"] = {"num": args.num, "seed": args.seed or 0, **chosen}
    return record


def _reference_record(plan: Any, suite: Any) -> dict[str, dict[str, Any]]:
    """Return what metrics compared with, by what they call it in `reference`."""
    from movq_jax.evaluation.suite import STATISTICS

    record = {
        kind: {"name": plan.names[kind], **found}
        for kind, found in suite.references().items()
    }
    if STATISTICS in record:
        record[STATISTICS]["protocol"] = plan.file.protocol or "unknown"
    return record


def _together(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one record of several protocols; nothing in it mixes their numbers."""
    return {
        "tool": "evaluate",
        "version": movq_jax.__version__,
        "results": list(records),
    }


def _text(records: Sequence[dict[str, Any]]) -> str:
    """Return the tables as people read them on a terminal."""
    from movq_jax.evaluation import metric_text

    lines = []
    for record in records:
        images = metric_text.images_text(record["num_images"])
        lines.append(f"{metric_text.title_of(record)}, {images}")
        rows = metric_text.rows_of(record)
        cells = [list(metric_text.COLUMNS), *rows] if rows else []
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for name, *rest in cells:
            row = [name.ljust(widths[0])]
            row += [t.rjust(w) for t, w in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join(row).rstrip())
        lines += [f"note: {note}" for note in metric_text.notes_of(record)]
        lines.append("")
    return "\n".join(lines[:-1])


def _raise_if_missing(records: Sequence[dict[str, Any]]) -> None:
    missing = [
        name
        for record in records
        for name, found in record["metrics"].items()
        if found["value"] is None and found.get("reason")
    ]
    if missing:
        raise UserError(f"{', '.join(missing)} could not be computed, see the notes")


if __name__ == "__main__":
    sys.exit(command.run(main))
