import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from movq_jax.errors import UserError
from movq_jax.measuring import memory, programs
from movq_jax.measuring.memory import Compiled, Memory
from movq_jax.measuring.programs import Program
from movq_jax.training.sharding import make_mesh, replicated


def test_a_state_that_is_given_up_counts_once():
    place = replicated(make_mesh())
    square = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=place)

    def step(state, x):
        return state + x, jnp.sum(x)

    results = [
        memory.compile_program(Program("step", step, (square, square), carries))
        for carries in (True, False)
    ]
    given_up, kept = (result.memory for result in results)
    size = 4 * 256 * 256
    assert given_up.arguments == kept.arguments == 2 * size
    assert given_up.aliased == size and kept.aliased == 0
    assert kept.total - given_up.total == size
    assert all(result.seconds > 0 for result in results)


@pytest.fixture
def kept(tmp_path):
    """The folder in which jax keeps compiled programs; it keeps all, however small."""
    wanted = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
        for name, value in wanted.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield tmp_path
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_compiling_without_what_was_kept(kept):
    place = replicated(make_mesh())
    square = jax.ShapeDtypeStruct((3, 3), jnp.float32, sharding=place)

    def compile_anew(number):
        memory.compile_program(Program("step", lambda x: x @ x + number, (square,)))
        return len(list(kept.iterdir()))

    known = compile_anew(1)
    assert known > 0
    with memory.without_compilation_cache():
        assert compile_anew(2) == known
    assert compile_anew(3) > known


def simulated(monkeypatch, bytes_of):
    """Let `bytes_of(batch size)` be what a program takes; returns what is compiled."""
    seen = []

    def compile_program(program):
        size = program.arguments[1]["image"].shape[0]
        seen.append(size)
        return Compiled(None, 1.0, Memory(0, 0, 0, bytes_of(size)))

    monkeypatch.setattr(memory, "compile_program", compile_program)
    return seen


@pytest.mark.parametrize(
    "bytes_of, expected",
    [
        (lambda n: 1000 + 10 * n, 900),
        (lambda n: 1000 + 10 * n + (n > 300) * 500, 850),
        (lambda n: 1000 + 10 * n - (n > 300) * 500, 950),
        (lambda n: 9_000 + 700 * n, 1),
        (lambda n: 8_000 + 700 * n, 2),
        (lambda n: 1000 + n * n // 10, 300),
    ],
)
def test_the_largest_count(bytes_of, expected):
    seen = []

    def needed(count):
        seen.append(count)
        return bytes_of(count)

    best, tried = memory._largest_count(needed, 10_000)
    assert best == expected and tried == {count: bytes_of(count) for count in seen}
    assert len(seen) == len(set(seen)) <= 12


def without_gan(tiny_config):
    return tiny_config("loss.adversarial.name=none")


def test_the_largest_batch(monkeypatch, tiny_config):
    seen = simulated(monkeypatch, lambda n: 1000 + 10 * n)
    said = []
    found = memory.largest_batch(tiny_config(), 10_000, make_mesh(), said.append)
    assert found["batch_size"] == 896 and found["bytes"] == 9960  # of 8 devices
    assert found["phase"] == "adversarial"
    assert len(said) == len(seen) == 3
    assert [entry["batch_size"] for entry in found["compiled"]] == sorted(seen)


def test_micro_batches_have_an_image_for_each_device(monkeypatch, tiny_config):
    seen = simulated(monkeypatch, lambda n: 100 * n)
    keys = ["train.accumulation=4", "train.batch_size=32"]
    config = tiny_config("loss.adversarial.name=none", *keys)
    found = memory.largest_batch(config, 10_000, make_mesh(), print)
    assert found["batch_size"] == 96 and all(size % 32 == 0 for size in seen)


def test_not_even_the_smallest_batch(monkeypatch, tiny_config):
    simulated(monkeypatch, lambda n: 5 * 10**9)
    with pytest.raises(UserError, match="not even a batch of 8 .* 5 GB .* of 2 GB"):
        memory.largest_batch(without_gan(tiny_config), 2 * 10**9, make_mesh(), print)


def test_a_compiler_that_does_not_say(monkeypatch, tiny_config):
    simulated(monkeypatch, lambda n: 0)
    monkeypatch.setattr(
        memory, "compile_program", lambda program: Compiled(None, 1.0, None)
    )
    with pytest.raises(UserError, match="'cpu' does not say how much memory"):
        memory.largest_batch(without_gan(tiny_config), 10**9, make_mesh(), print)


def test_a_step_needs_more_for_a_larger_batch(tiny_config, shapes):
    config = tiny_config("loss.adversarial.name=none")
    small, large = (
        memory.compile_program(
            programs.train_step(config, "reconstruction", shapes(size, devices=1))
        ).memory
        for size in (2, 4)
    )
    assert large.temporary > small.temporary
    state = config.data.image_size**2 * 3  # bytes of an image
    assert large.arguments - small.arguments == 2 * state
    assert small.aliased > 0.9 * small.arguments
