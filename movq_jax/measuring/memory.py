"""The memory of a compiled program, and the largest batch that fits into a device's."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh
from ml_collections import ConfigDict

from movq_jax.config import kind_of
from movq_jax.errors import UserError
from movq_jax.measuring import prior_programs, programs
from movq_jax.measuring.programs import Program, Shapes
from movq_jax.training import prior_task, sharding

GIGABYTE = 10**9
_MOST_COMPILATIONS = 12


class Memory(NamedTuple):
    """Bytes of a program on one device, as its compiler says."""

    arguments: int
    outputs: int
    aliased: int  # of the outputs, in the place of arguments that were given up
    temporary: int

    @property
    def total(self) -> int:
        """All that is held at once, at most."""
        return self.arguments + self.outputs - self.aliased + self.temporary


class Compiled(NamedTuple):
    """A program that is ready to run."""

    call: Any
    seconds: float  # of tracing and compiling
    memory: Memory | None  # None: this backend does not say


def compile_program(program: Program) -> Compiled:
    """Compiles for the devices that the shapes name; nothing runs."""
    start = time.perf_counter()
    # As the loop does it: the new state where the old one was.
    options = {}
    if program.carries:
        mesh = jax.tree.leaves(program.arguments[0])[0].sharding.mesh
        options = {"donate_argnums": 0, "out_shardings": sharding.replicated(mesh)}
    call = jax.jit(program.function, **options).lower(*program.arguments).compile()
    return Compiled(call, time.perf_counter() - start, _analysis(call))


@contextlib.contextmanager
def without_compilation_cache() -> Iterator[None]:
    """Within it nothing compiled is read from disk or kept there.

    So `Compiled.seconds` is what compiling takes, whatever
    `$JAX_COMPILATION_CACHE_DIR` says.
    """
    enabled = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # jax looks at its config but once
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def _analysis(compiled: Any) -> Memory | None:
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    return Memory(
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
    )


def largest_batch(
    config: ConfigDict, budget: int, mesh: Mesh, say: Callable[[str], None]
) -> dict[str, Any]:
    """The largest training batch whose program fits into `budget` bytes a device.

    Programs of two small batches are compiled; the line through what they take predicts
    the largest, which is compiled, too; and so on, until the next larger one does not
    fit, or is predicted not to. The phase is that with the most work.
    What another backend's compiler needs, or another version's, may differ.

    Args:
      config: whose batch size is not looked at.
      budget: bytes that programs may take on each device.
      mesh: the devices that share the batch.
      say: told of each program.

    Returns:
      `batch_size` (of all devices together), `bytes` of a device at that size, `phase`,
      and `compiled`: what was tried.

    Raises:
      UserError: not even the smallest batch fits, or the backend does not tell.
    """
    unit = mesh.size * config.train.accumulation
    phase, make_step = _dearest_step(config, unit)

    def needed(count: int) -> int:
        shapes = Shapes(count * unit, config.data.image_size, mesh)
        compiled = compile_program(make_step(shapes))
        if compiled.memory is None:
            raise UserError(
                f"the compiler of the backend {jax.default_backend()!r} does not "
                "say how much memory a program needs; try another backend"
            )
        total = compiled.memory.total
        say(
            f"compiled a batch of {count * unit}: {total / GIGABYTE:.3g} GB a device "
            f"({compiled.seconds:.0f} s)"
        )
        return total

    best, tried = _largest_count(needed, budget)
    if not best:
        raise UserError(
            f"not even a batch of {unit} (one image a device and micro-batch) fits: it "
            f"takes {tried[1] / GIGABYTE:.3g} GB a device of "
            f"{budget / GIGABYTE:.3g} GB; try config.model.dtype=bfloat16, "
            f"{programs.remat_field(config)} or smaller images"
        )
    return {
        "batch_size": best * unit,
        "bytes": tried[best],
        "phase": phase,
        "compiled": [
            {"batch_size": count * unit, "bytes": tried[count]}
            for count in sorted(tried)
        ],
    }


def _largest_count(
    needed: Callable[[int], int], budget: int
) -> tuple[int, dict[int, int]]:
    """The largest count with `needed(count) <= budget` (0: none), and all tried."""
    tried = {1: needed(1)}
    if tried[1] > budget:
        return 0, tried
    tried[2] = needed(2)
    while True:
        best = max(count for count in tried if tried[count] <= budget)
        too_large = min((c for c in tried if tried[c] > budget), default=None)
        guess = _predict(tried, best, too_large, budget)
        if guess <= best or len(tried) == _MOST_COMPILATIONS:
            return best, tried
        tried[guess] = needed(guess)


def _predict(
    tried: dict[int, int], best: int, too_large: int | None, budget: int
) -> int:
    """A count to try next; `best` or less: there is none.

    Where a line reaches the budget: that through the two largest, as long as all fit,
    then that between the largest that fits and the least that does not.
    """
    if too_large is None:
        other = max(count for count in tried if count != best)
        return _on_line(tried, other, best, budget)
    if tried[too_large] > 2 * budget:  # the line was far off
        guess = math.isqrt(best * too_large)
    else:
        guess = _on_line(tried, best, too_large, budget)
    return min(max(guess, best + 1), too_large - 1)


def _on_line(tried: dict[int, int], low: int, high: int, budget: int) -> int:
    slope = max((tried[high] - tried[low]) / (high - low), 1.0)
    return math.floor(low + (budget - tried[low]) / slope)


def _dearest_step(
    config: ConfigDict, batch_size: int
) -> tuple[str, Callable[[Shapes], Program]]:
    """The phase with the most work, and what makes the program of its step."""
    if kind_of(config) == "prior":
        return prior_task.PHASES[0], partial(prior_programs.train_step, config)
    shapes = Shapes(batch_size, config.data.image_size, sharding.make_mesh())

    def flops(phase):
        program = programs.train_step(config, phase, shapes)
        return programs.flops_per_image(program, shapes)

    phase = max(programs.phases(config), key=flops)
    return phase, partial(programs.train_step, config, phase)
