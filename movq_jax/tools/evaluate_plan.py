"""From the flags of `movq evaluate` to what is judged, and what it is compared with."""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import movq_jax
from movq_jax import compilation_cache
from movq_jax.data.sources import open_split
from movq_jax.errors import UserError
from movq_jax.evaluation import reference_files
from movq_jax.evaluation.image_pairs import in_pairs
from movq_jax.evaluation.image_sets import (
    DatasetImages,
    FileImages,
    ImageSet,
    NpzImages,
)
from movq_jax.evaluation.metric_table import PAIRS, SETS, of_kind
from movq_jax.evaluation.protocols import Protocol, find_protocol
from movq_jax.evaluation.reference_files import ReferenceFile
from movq_jax.evaluation.suite import STATISTICS
from movq_jax.tools import evaluate_flags, files, image_data, sampling_flags
from movq_jax.tools.evaluate_sources import Drawn, Reconstructed, Stored

# Nothing is written among the images, so no folder is to be left out.
_NO_OUTPUT = Path("/dev/null")


@dataclasses.dataclass
class Plan:
    """What is to be done.

    Attributes:
        metrics: names of what is asked for.
        protocols: by which images are looked at.
        source: of the images to be judged; None where only `nll` is asked for.
        partnered: whether the source gives each image its partner.
        reference: another set that metrics of sets compare with; None: the partners,
            or a file's statistics, or nothing.
        names: of what metrics compare with, by what the suite calls it.
        notes: what a reader of the numbers has to know of the images.
        file: statistics of the reference, if a file of them was named.
        split: what `nll` is of.
        model: what `movq_jax.load` returns.
    """

    metrics: tuple[str, ...]
    protocols: list[Protocol]
    source: Stored | Reconstructed | Drawn | None = None
    partnered: bool = False
    reference: ImageSet | None = None
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    file: ReferenceFile | None = None
    split: DatasetImages | None = None
    model: Any = None

    @property
    def is_prior(self) -> bool:
        """Whether the model draws images."""
        return hasattr(self.model, "sample")


def make_plan(args: argparse.Namespace) -> Plan:
    """Open all that the flags name.

    Raises:
        UserError: something is not there, or does not fit together.
    """
    protocols = [find_protocol(name) for name in evaluate_flags.protocol_names(args)]
    if not protocols:
        raise UserError("--protocol names none: leave it out for 'default'")
    model = None
    if args.model is not None:
        compilation_cache.enable()
        model = movq_jax.load(args.model, micro_batch=args.micro_batch)
    prior = hasattr(model, "sample")
    metrics = evaluate_flags.metrics_of(args, prior=prior)
    protocols = [_with_size(p, args, model) for p in protocols]
    plan = Plan(metrics, protocols, model=model)
    if args.reference is not None:
        stored_pairs = model is None and of_kind(metrics, PAIRS)
        most = None if stored_pairs else args.max_images
        plan.file, plan.reference = _open_reference(args.reference, most)
        name = ", ".join(args.reference)
        plan.names = dict.fromkeys((PAIRS, SETS, STATISTICS), name)
    if prior:
        _plan_prior(plan, args)
    elif model is not None:
        _plan_tokenizer(plan, args)
    else:
        _plan_images(plan, args)
    files.refuse_same_file(evaluate_flags.outputs(args), _inputs(plan, args))
    return plan


def _inputs(plan: Plan, args: argparse.Namespace) -> Iterator[Path]:
    """Yield the files that are read, as far as a result could be meant for them."""
    for images in (plan.source, plan.reference):
        yield from () if images is None else images.paths
    if plan.file is not None:
        yield plan.file.path
    for weights in (args.inception, args.squeezenet, args.lpips):
        path = Path(weights).expanduser()
        yield from path.iterdir() if weights and path.is_dir() else [path]
    if args.model is not None:
        folder = Path(args.model).expanduser()
        # A run's folder is where results may well go: beside, not over, what it has.
        yield from (folder / name for name in ("config.json", "metrics.jsonl"))
        yield from (folder / "model").rglob("*")
        yield from folder.glob("*.safetensors")


def _plan_prior(plan: Plan, args: argparse.Namespace) -> None:
    options = sampling_flags.options(args)
    sampling_flags.check_options(plan.model, options)
    dataset = _open_dataset(args, args.max_images) if args.dataset else None
    if "nll" in plan.metrics:
        plan.split = dataset
    if of_kind(plan.metrics, SETS):
        plan.source = Drawn(plan.model, args.num, args.seed or 0, options)
        if args.reference is None and dataset is not None:
            plan.reference, plan.names = dataset, {SETS: dataset.name}


def _plan_tokenizer(plan: Plan, args: argparse.Namespace) -> None:
    if args.images is None and args.dataset is None:
        raise UserError(
            f"--model={args.model} is a tokenizer: give --dataset or --images, whose "
            "reconstructions are judged"
        )
    if args.dataset is not None:
        images = _open_dataset(args, args.max_images)
    else:
        images = _open_images(args.images, args.max_images)
    plan.source, plan.partnered = Reconstructed(plan.model, images), True
    # Metrics of pairs compare with what went in, whatever the others compare with.
    plan.names = {SETS: images.name, **plan.names, PAIRS: images.name}


def _plan_images(plan: Plan, args: argparse.Namespace) -> None:
    pairs = of_kind(plan.metrics, PAIRS)
    # The first N of pairs are taken once it is known which belong together.
    most = None if pairs else args.max_images
    images = _open_images(args.images, most) if args.images is not None else None
    if args.dataset is not None:
        dataset = _open_dataset(args, most)
        if images is None:
            images = dataset
        else:
            plan.reference = dataset
            plan.names = dict.fromkeys((PAIRS, SETS), dataset.name)
    if not pairs:
        plan.source = Stored(images, micro_batch=args.micro_batch)
        return
    if plan.reference is None:
        raise UserError(
            f"{pairs[0]} compares images with images, and {plan.names[PAIRS]} has "
            "statistics alone: give the reference's images"
        )
    images, partners, note = in_pairs(images, plan.reference, args.max_images)
    plan.notes += [note] if note else []
    # The partners are the reference set: one pass over both does.
    plan.source = Stored(images, partners, micro_batch=args.micro_batch)
    plan.partnered, plan.reference = True, None


def _with_size(protocol: Protocol, args: argparse.Namespace, model: Any) -> Protocol:
    """The protocol at the size that is asked for, or that the model was made for."""
    if args.image_size is not None:
        return protocol.with_size(args.image_size)
    size = _size_of(model, args.model) if model is not None else None
    return protocol.with_size(size) if size else protocol


def _size_of(model: Any, path: str) -> int | None:
    """The side of the images that a model was evaluated on, where that is known."""
    if hasattr(model, "sample"):
        height, width = model.image_size
        return height if height == width else None
    evaluated = model.protocol.get("eval") or {}
    trained = (image_data.run_config(path) or {}).get("data") or {}
    return evaluated.get("image_size") or trained.get("image_size")


def _open_reference(
    texts: Sequence[str], most: int | None
) -> tuple[ReferenceFile | None, ImageSet | None]:
    """The statistics that `--reference` names, and its images, as far as there are."""
    path = _npz(texts)
    if path is None or not reference_files.has_statistics(path):
        return None, _open_images(texts, most)
    file = reference_files.read_statistics(path)
    if not file.has_images:
        return file, None
    return file, NpzImages(path, most)


def _open_images(texts: Sequence[str], most: int | None) -> ImageSet:
    path = _npz(texts)
    if path is not None:
        return NpzImages(path, most)
    found = files.find_files(texts, output=_NO_OUTPUT)
    # By path, as others sort them: blocks and subsets of images depend on the order.
    found = sorted(found, key=lambda file: file.path.as_posix())
    pairs = [(file.path, file.name) for file in found]
    return FileImages(", ".join(texts), pairs[:most])


def _npz(texts: Sequence[str]) -> Path | None:
    """The npz file that a flag names alone, or None."""
    path = Path(texts[0]).expanduser()
    return path if len(texts) == 1 and path.suffix.lower() == ".npz" else None


def _open_dataset(args: argparse.Namespace, most: int | None) -> DatasetImages:
    place = SimpleNamespace(dataset=args.dataset, data_dir=args.data_dir or "")
    source = open_split(place, args.split or image_data.SPLIT)
    return DatasetImages(source, most)
