"""How fast a model trains, encodes and decodes on the devices that are here."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from movq_jax import families
from movq_jax.config import kind_of
from movq_jax.data import pipeline
from movq_jax.errors import UserError
from movq_jax.measuring import memory, prior_programs, programs, rates, timing
from movq_jax.measuring.programs import Program, Shapes
from movq_jax.progress import Progress
from movq_jax.training import prior_task, sharding

PARTS = ("train", "encode", "decode")  # of a tokenizer; of a prior `prior_programs`'s
_PRODUCT = "matrix product"


class _Part(NamedTuple):
    """A program, compiled and ready."""

    program: Program
    compiled: memory.Compiled
    runner: timing.Runner
    device_peak: int | None
    feed: "RealImages | None" = None


def measure_model(
    config: ConfigDict,
    parts: Sequence[str],
    *,
    phase: str | None,
    breakdown: bool,
    real_data: bool,
    rounds: int,
    limits: timing.Limits,
) -> dict[str, Any]:
    """Compiles and times, by turns, and compares with the rate of matrix products.

    What jax keeps of compiled programs is not looked at meanwhile.

    Args:
      config: `train.batch_size` images go through every part at once.
      parts: of `PARTS`, or of a prior of `prior_programs.PARTS`.
      phase: of the training step; None: the last that the config has.
      breakdown: also time the networks of a training step, each by itself.
      real_data: the training step gets its batches from the pipeline of `config.data`.
      rounds: how often they take turns.
      limits: how long a turn lasts; with lazy R1 it ends with a whole period. Matrix
        products are the yardstick: their turns last as many seconds, whatever the
        number of steps, and `rates.LEAST_SECONDS` at least.

    Returns:
      `phase` (None: no training step), `device`, `matrix_product`, and name -> record,
      see `_record`, of `parts` and of `breakdown`.

    Raises:
      UserError: the config is one that training refuses, or has no such phase; the
        devices cannot share the batch, the dataset is not there, or memory does not
        suffice.
    """
    config, phases = _settle(config)
    phase = _read_phase(phase, phases)
    mesh = sharding.make_mesh()
    size = config.train.batch_size
    sharding.check_batch_size(size, mesh, "the batch size")
    if "train" in parts and size % (mesh.size * config.train.accumulation):
        raise UserError(
            f"the batch size is {size}, but must be a multiple of devices x "
            f"config.train.accumulation, {mesh.size} x {config.train.accumulation}"
        )
    shapes = Shapes(size, config.data.image_size, mesh)
    wanted = list(_programs(config, parts, phase, shapes))
    pieces = list(_pieces(config, shapes)) if breakdown else []
    with contextlib.ExitStack() as stack, _memory_errors(config):
        stack.enter_context(memory.without_compilation_cache())
        feed = None
        if real_data:
            feed = stack.enter_context(RealImages(config, mesh))
        ready = _prepare(wanted + pieces, feed)
        product = rates.fastest_product(config.model.dtype, jax.devices()[0])
        seconds = max(limits.seconds, rates.LEAST_SECONDS)
        times = timing.time_by_turns(
            {name: part.runner for name, part in ready.items()} | {_PRODUCT: product},
            rounds=rounds,
            limits={
                name: dataclasses.replace(limits, period=part.program.period)
                for name, part in ready.items()
            }
            | {_PRODUCT: timing.Limits(seconds=seconds)},
        )
    measured = _rate_of(product, times.pop(_PRODUCT))
    records = {
        name: _record(part, times[name], shapes, measured["flops_per_second"])
        for name, part in ready.items()
    }
    return {
        "phase": phase if "train" in parts else None,
        "device": describe_device(mesh),
        "matrix_product": {"dtype": config.model.dtype, **measured},
        "parts": {program.name: records[program.name] for program in wanted},
        "breakdown": {program.name: records[program.name] for program in pieces},
    }


def describe_device(mesh: Mesh) -> dict[str, Any]:
    """What the programs ran on."""
    device = mesh.devices.flat[0]
    return {
        "kind": device.device_kind,
        "platform": device.platform,
        "count": mesh.size,
        "datasheet_flops_per_second": rates.datasheet_peak(device.device_kind),
    }


class RealImages:
    """Batches of the training pipeline on the devices; a context manager."""

    def __init__(self, config: ConfigDict, mesh: Mesh) -> None:
        """Open the dataset; raises UserError where it is not there."""
        self._mesh = mesh
        self._batches = pipeline.train_batches(
            config.data, seed=config.seed, batch_size=config.train.batch_size, start=0
        )
        self.waits: list[float] = []  # seconds of each call

    def __enter__(self) -> "RealImages":
        return self

    def __exit__(self, *exception: object) -> None:
        self._batches.close()

    def __call__(self) -> dict[str, jax.Array]:
        """The next batch."""
        start = time.perf_counter()
        images = {"image": next(self._batches)["image"]}
        batch = sharding.shard_local_batch(images, self._mesh)
        self.waits.append(time.perf_counter() - start)
        return batch


def _settle(config: ConfigDict) -> tuple[ConfigDict, Sequence[str]]:
    """The config, nothing left open, and the phases of its training."""
    if kind_of(config) == "prior":
        return prior_programs.settle(config), prior_task.PHASES
    programs.check_config(config)
    return config, programs.phases(config)


def _read_phase(wanted: str | None, known: Sequence[str]) -> str:
    if wanted is None:
        return known[-1]
    if wanted not in known:
        raise UserError(
            f"this config's training has no phase {wanted!r}"
            f"{families.nearest(wanted, known)}"
        )
    return wanted


def _programs(
    config: ConfigDict, parts: Sequence[str], phase: str, shapes: Shapes
) -> Iterator[Program]:
    if kind_of(config) == "prior":
        yield from prior_programs.programs(config, parts, shapes)
        return
    if "train" in parts:
        yield programs.train_step(config, phase, shapes)
    if "encode" in parts:
        yield programs.encode(config.model, shapes)
    if "decode" in parts:
        yield programs.decode(config.model, shapes)


def _pieces(config: ConfigDict, shapes: Shapes) -> Iterator[Program]:
    for program in programs.tokenizer_parts(config.model, shapes):
        yield from (program, programs.with_backward(program))
    for program in programs.loss_parts(config, shapes):
        yield from (program, programs.with_backward(program))


def _prepare(wanted: Sequence[Program], feed: RealImages | None) -> dict[str, _Part]:
    """Compiles all, and runs each once, those with little memory first.

    So each has its own peak: a device tells that of the whole process.
    """
    compiled = {}
    with Progress(len(wanted), "programs compiled") as progress:
        for program in wanted:
            compiled[program.name] = memory.compile_program(program)
            progress.advance()

    def size(program):
        needs = compiled[program.name].memory
        return 0 if needs is None else needs.total

    ready = {}
    for program in sorted(wanted, key=size):
        own_feed = feed if program.carries else None
        result = compiled[program.name]
        with timing.device_peak(jax.devices()[0]) as peak:
            runner = timing.Runner(program, result, own_feed)
            jax.block_until_ready(runner.run())
            ready[program.name] = _Part(program, result, runner, peak(), own_feed)
        if own_feed is not None:
            own_feed.waits.clear()
    return ready


def _record(
    part: _Part, times: list[list[float]], shapes: Shapes, measured: float
) -> dict[str, Any]:
    """Times of a part and what follows from them. FLOPs and bytes are of one device.

    Where R1 is lazy, `period` is how many steps it has one in, and FLOPs and rates are
    those of whole periods: the mean of the former, `of_period` of `timing.summary`.
    """
    period = part.program.period
    seconds = timing.summary(times, period)
    flops = programs.flops_per_image(part.program, shapes)
    images = shapes.batch_size / seconds["of_period"]
    devices = shapes.mesh.size
    rate = flops * images / devices
    peak = rates.datasheet_peak(shapes.mesh.devices.flat[0].device_kind)
    record = {
        "compile_seconds": part.compiled.seconds,
        "period": period,
        "step_seconds": seconds,
        "images_per_second": images,
        "images_per_second_per_device": images / devices,
        "flops_per_image": flops,
        "flops_per_second": rate,
        "share_of_matrix_product": rate / measured,
        "share_of_datasheet": None if peak is None else rate / peak,
        **_memory_record(part),
    }
    if part.feed is not None:
        waited = timing.of_timed_steps(part.feed.waits, times)
        record["data_wait_share"] = sum(waited) / sum(map(sum, times))
    return record


def _memory_record(part: _Part) -> dict[str, Any]:
    if part.device_peak is not None:
        return {"peak_bytes": part.device_peak, "peak_bytes_source": "device"}
    if part.compiled.memory is not None:
        total = part.compiled.memory.total
        return {"peak_bytes": total, "peak_bytes_source": "compiler"}
    return {"peak_bytes": None, "peak_bytes_source": None}


def _rate_of(product: rates.MatrixProduct, times: list[list[float]]) -> dict[str, Any]:
    seconds = timing.summary(times)
    return {
        "size": product.size,
        "flops_per_second": product.flops / seconds["median"],
        "step_seconds": seconds,
    }


@contextlib.contextmanager
def _memory_errors(config: ConfigDict) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            "the device's memory does not suffice: give a smaller --batch-size "
            "(`movq describe --device-memory=GB` looks for the largest), "
            f"{programs.remat_field(config)} or --dtype=bfloat16"
        ) from error
