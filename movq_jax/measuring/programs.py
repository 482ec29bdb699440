"""What is measured of a tokenizer: a training step, encoding, decoding, their parts.

A program is a function with the shapes that it is called with. Its FLOPs are counted
and its memory is analysed from the shapes alone; to be timed it is given values, which
are random: how long it takes does not depend on them, so no weights are needed.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from movq_jax.config import kind_of
from movq_jax.flops import count_flops
from movq_jax.models.pixels import from_uint8, to_uint8
from movq_jax.models.tokenizer import Tokenizer, build_tokenizer
from movq_jax.training import sharding, tokenizer_task
from movq_jax.training.discriminator_step import build_discriminator
from movq_jax.training.perceptual import make_perceptual
from movq_jax.training.ranges import check_ranges


class Program(NamedTuple):
    """A function and the shapes of its arguments."""

    name: str
    function: Callable
    arguments: tuple  # pytrees of ShapeDtypeStruct with shardings
    # The first argument is given up, and the first result takes its place.
    carries: bool = False
    id_limit: int = 1  # integers among the arguments lie below it
    # Lazy R1: one step in `period` does more than the others, which are `usual`.
    period: int = 1
    usual: Callable | None = None


class Shapes(NamedTuple):
    """How many images of which size, and on which devices."""

    batch_size: int
    image_size: int
    mesh: Mesh

    def images(self, dtype: Any = jnp.uint8) -> jax.ShapeDtypeStruct:
        """[B, S, S, 3], a part of the batch on each device."""
        shape = (self.batch_size, self.image_size, self.image_size, 3)
        return self.batched(jax.ShapeDtypeStruct(shape, dtype))

    def batched(self, tree: Any) -> Any:
        """`tree` of shapes whose first axis is that of the batch."""
        return _placed(tree, sharding.batch_sharding(self.mesh))

    def replicated(self, tree: Any) -> Any:
        """`tree` of shapes, whole on each device."""
        return _placed(tree, sharding.replicated(self.mesh))


def check_config(config: ConfigDict) -> None:
    """Refuses what training refuses before it looks at devices, data and weights.

    Raises:
      UserError: the key, its value, and what it could be.
    """
    check_ranges(config)
    tokenizer_task.check(config)


def remat_field(config: ConfigDict) -> str:
    """What computes a part twice, to save memory."""
    return f"config.train.{'remat' if kind_of(config) == 'prior' else 'remat_levels'}"


def phases(config: ConfigDict) -> list[str]:
    """The phases that a run of `config` goes through, in their order."""
    adversarial = config.loss.adversarial
    turns = (0, adversarial.start - adversarial.warmup, adversarial.start)
    steps = [step for step in turns if 0 <= step < config.train.num_steps]
    return list(dict.fromkeys(tokenizer_task.phase(config, step) for step in steps))


def train_step(config: ConfigDict, phase: str, shapes: Shapes) -> Program:
    """The training step of a phase, as the loop compiles it."""
    state = jax.eval_shape(lambda: tokenizer_task.init_state(config))
    frozen = tokenizer_task.abstract_frozen(config)
    arguments = (
        shapes.replicated(state),
        {"image": shapes.images()},
        shapes.replicated(frozen),
    )
    program = Program(
        f"train ({phase})",
        tokenizer_task.make_train_step(config, phase),
        arguments,
        carries=True,
    )
    adversarial = config.loss.adversarial
    r1 = adversarial.r1
    if adversarial.name == "none" or phase == "reconstruction" or not r1.weight:
        return program
    if r1.every == 1:
        return program
    without = config.copy_and_resolve_references()
    without.loss.adversarial.r1.weight = 0.0
    usual = tokenizer_task.make_train_step(without, phase)
    return program._replace(period=r1.every, usual=usual)


def encode(model: Any, shapes: Shapes) -> Program:
    """uint8 images -> indices, of a config's `model` section."""
    tokenizer = build_tokenizer(model)

    def function(params, images):
        x = from_uint8(images)
        return tokenizer.apply({"params": params}, x, method="encode")

    arguments = (shapes.replicated(_parameters(tokenizer)), shapes.images())
    return Program("encode", function, arguments)


def decode(model: Any, shapes: Shapes) -> Program:
    """Indices -> uint8 images, of a config's `model` section."""
    tokenizer = build_tokenizer(model)

    def function(params, ids):
        x = tokenizer.apply({"params": params}, ids, method="decode_ids")
        return to_uint8(x)

    ids = jax.ShapeDtypeStruct(grid_shape(tokenizer, shapes), jnp.int32)
    arguments = (shapes.replicated(_parameters(tokenizer)), shapes.batched(ids))
    return Program(
        "decode", function, arguments, id_limit=min(tokenizer.codebook_sizes)
    )


def grid_shape(tokenizer: Tokenizer, shapes: Shapes) -> tuple[int, int, int, int]:
    """(B, h, w, M) of the indices."""
    side = shapes.image_size // tokenizer.factor
    return shapes.batch_size, side, side, tokenizer.num_channels


def tokenizer_parts(model: Any, shapes: Shapes) -> Iterator[Program]:
    """Encoder, quantizer and decoder in training, each by itself.

    The first argument is the parameters, the second what goes in. The convolutions
    beside the quantizer belong to encoder and decoder here, as in their methods.
    """
    tokenizer = build_tokenizer(model)
    params = shapes.replicated(_parameters(tokenizer))

    def apply(name, **kwargs):
        def function(params, x):
            result = tokenizer.apply(
                {"params": params},
                x,
                method=name,
                rngs={name: jax.random.key(0) for name in ("dropout", "codebook")},
                **kwargs,
            )
            return result

        return function

    images = shapes.images(jnp.float32)
    encoder = apply("encode_latents", train=True)
    latents = shapes.batched(jax.eval_shape(encoder, params, images))
    z_q = jax.ShapeDtypeStruct(latents.shape, jnp.float32, sharding=latents.sharding)

    def quantizer(params, z):
        out = apply(lambda module, z: module.quantize(z, train=True))(params, z)
        return out.z_q, out.loss

    yield Program("encoder", encoder, (params, images))
    yield Program("quantizer", quantizer, (params, latents))
    yield Program("decoder", apply("decode_latents", train=True), (params, z_q))


def loss_parts(config: ConfigDict, shapes: Shapes) -> Iterator[Program]:
    """The networks that the losses look through, those that `config` has.

    The perceptual net's first argument is the reconstruction: of its features alone
    there are gradients, and it sees the pair.
    """
    images = shapes.images(jnp.float32)
    perceive = make_perceptual(config.loss.perceptual)
    if perceive is not None:
        weights = shapes.replicated(perceive.abstract())
        yield Program(
            "perceptual",
            lambda x_hat, x, weights: perceive(weights, x, x_hat),
            (images, images, weights),
        )
    if config.loss.adversarial.name != "none":
        module = build_discriminator(config)
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
        params = variables.pop("params")

        def discriminator(params, x, variables):
            return module.apply(
                {"params": params, **variables},
                x,
                train=True,
                mutable=list(variables),
            )[0]

        arguments = (
            shapes.replicated(params),
            images,
            shapes.replicated(variables),
        )
        yield Program("discriminator", discriminator, arguments)


def with_backward(program: Program) -> Program:
    """The same and its gradients, from a random cotangent of each result.

    With respect to the parameters (of the perceptual net: the reconstruction), and to
    what goes in where a step passes gradients on: not to the images.
    """
    function, name = program.function, program.name
    passes_on = name in ("quantizer", "decoder")

    def gradients(cotangents, first, second, *rest):
        def of(first, second):
            return function(first, second, *rest)

        if passes_on:
            results, pullback = jax.vjp(of, first, second)
        else:
            results, pullback = jax.vjp(lambda first: of(first, second), first)
        return results, pullback(cotangents)

    results = jax.eval_shape(function, *program.arguments)
    place = program.arguments[1].sharding
    cotangents = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(
            a.shape, a.dtype, sharding=place if a.shape else _whole(place)
        ),
        results,
    )
    arguments = (cotangents, *program.arguments)
    return Program(f"{name}, forward and backward", gradients, arguments)


def flops_per_image(program: Program, shapes: Shapes) -> int:
    """Counted, not compiled, see `movq_jax.flops`; the mean over a period of steps."""
    flops = count_flops(program.function, *program.arguments)
    if program.usual is not None:
        usual = count_flops(program.usual, *program.arguments)
        flops = (flops + (program.period - 1) * usual) / program.period
    return round(flops / shapes.batch_size)


def random_arguments(program: Program, seed: int = 0) -> tuple:
    """Arguments of the right shapes, on their devices, that lead to finite numbers."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
        values = _draw(rng, names, leaf, program.id_limit)
        return jax.device_put(values, leaf.sharding)

    return jax.tree_util.tree_map_with_path(draw, program.arguments)


def _draw(rng, names, leaf, id_limit) -> np.ndarray:
    """Pixels, indices, weights that keep the variance; zeros for what only counts."""
    shape = leaf.shape
    if leaf.dtype == jnp.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        if len(shape) == 4:
            return rng.integers(0, id_limit, shape, leaf.dtype)
        return np.zeros(shape, leaf.dtype)
    if "scale" in names or "var" in names:
        return np.ones(shape, leaf.dtype)
    optimizer = {"gen_opt", "disc_opt"} & set(names)
    if not shape or optimizer or names[-1] in ("bias", "mean"):
        return np.zeros(shape, leaf.dtype)
    values = rng.random(shape, np.float32) * 2 - 1
    if names[-1] == "kernel":
        values *= np.sqrt(3 / np.prod(shape[:-1]))
    return values.astype(leaf.dtype)


def _parameters(tokenizer: Tokenizer) -> Any:
    image = jnp.zeros((1, tokenizer.factor, tokenizer.factor, 3))
    return jax.eval_shape(tokenizer.init, jax.random.key(0), image)["params"]


def _placed(tree: Any, place: Any) -> Any:
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree
    )


def _whole(place: Any) -> Any:
    return sharding.replicated(place.mesh)
