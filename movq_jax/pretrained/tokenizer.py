"""A trained tokenizer, ready to use from Python."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError
from movq_jax.models.pixels import from_uint8, to_uint8
from movq_jax.models.tokenizer import Tokenizer, build_tokenizer
from movq_jax.pretrained.bundle import Bundle, check_fit
from movq_jax.pretrained.micro_batches import MicroBatches


class PretrainedTokenizer:
    """Images to indices and back, with the averaged weights of a run.

    Attributes:
      config: the model's config.
      protocol: how the weights came to be.
      fingerprint: 64 hex digits that tell this model from others.
      factor: sides of images must be multiples of it.
      codebook_sizes: of each channel, M numbers; indices are 0..K-1.
      codebook_size: K, the largest of them.
      num_channels: M, indices a position.
      channel_books: which codebook each channel points into, M names.
      bits_per_position: sum of log2 of the codebook sizes.
      micro_batch: images a compiled call; the last one is padded. At a given
        micro-batch an image's result does not depend on the images beside it.
        1 on the CPU and 8 elsewhere by default.
    """

    def __init__(self, bundle: Bundle, *, micro_batch: int | None = None) -> None:
        self._module = build_tokenizer(bundle.model)
        check_fit(_expected(self._module), bundle.params)
        self._variables = inference_variables(self._module, bundle.params)
        self.config = bundle.model
        self.protocol = bundle.protocol
        self.fingerprint = bundle.fingerprint
        self.factor = self._module.factor
        self.codebook_size = self._module.codebook_size
        self.codebook_sizes = self._module.codebook_sizes
        self.channel_books = self._module.channel_books
        self.bits_per_position = self._module.bits_per_position
        self.num_channels = self._module.num_channels
        self.micro_batch = micro_batch or default_micro_batch()
        self._workers: dict[tuple[jax.Device, ...], tuple[Any, Any]] = {}

    def __repr__(self) -> str:
        return (
            f"PretrainedTokenizer(factor={self.factor}, K={self.codebook_size}, "
            f"M={self.num_channels}, fingerprint={self.fingerprint[:12]})"
        )

    def encode(self, images: np.ndarray | jax.Array) -> np.ndarray:
        """Images to indices.

        Args:
          images: uint8 [B, H, W, 3], or float [B, H, W, 3] in [-1, 1]; H and W are
            multiples of `factor`.

        Returns:
          int32 [B, H / factor, W / factor, M].

        Raises:
          UserError: wrong shape, dtype or range.
        """
        images = np.asarray(images)
        self._check_images(images)
        return self._in_micro_batches(self._encode, images)

    def decode(
        self,
        ids: np.ndarray | jax.Array,
        dtype: Literal["uint8", "float32"] = "uint8",
        *,
        devices: Sequence[jax.Device] | None = None,
    ) -> np.ndarray:
        """Indices to images.

        Args:
          ids: integers [B, h, w, M], each in 0..K-1.
          dtype: 'uint8' for 0..255, 'float32' for [-1, 1], clipped to it.
          devices: those that share the work, with the same result to the bit; by
            default the first alone.

        Returns:
          [B, h * factor, w * factor, 3].

        Raises:
          UserError: wrong shape, dtype or range.
        """
        ids = np.asarray(ids)
        self.check_ids(ids)
        if dtype not in ("uint8", "float32"):
            raise UserError(f"decode gives 'uint8' or 'float32' images, not {dtype!r}")
        ids = ids.astype(np.int32)
        if devices is None:
            x = self._in_micro_batches(self._decode, ids)
        else:
            workers, program = self._decode_on(tuple(devices))
            x = workers.run(program, None, ids)
        return np.asarray(to_uint8(jnp.asarray(x))) if dtype == "uint8" else x

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of the module and arrays, for what has no method here.

        Args:
          function: `function(tokenizer, *arrays)`, where `tokenizer` is the Linen
            module (`movq_jax.models.tokenizer.Tokenizer`) with these weights.

        Returns:
          a function of the arrays alone.
        """

        def run(variables, *arrays):
            return self._module.apply(variables, *arrays, method=function)

        return partial(jax.jit(run), self._variables)

    @cached_property
    def _encode(self):
        def encode(tokenizer, images):
            x = from_uint8(images) if images.dtype == jnp.uint8 else images
            return tokenizer.encode(x)

        return self.compiled(encode)

    @cached_property
    def _decode(self):
        return self.compiled(_clipped)

    def _decode_on(self, devices: tuple[jax.Device, ...]) -> tuple[Any, Any]:
        if devices not in self._workers:

            def decode(variables, _, ids):
                return self._module.apply(variables, ids, method=_clipped)

            workers = MicroBatches(self._variables, self.micro_batch, devices)
            self._workers[devices] = workers, workers.compiled(decode)
        return self._workers[devices]

    def _in_micro_batches(self, function, inputs: np.ndarray) -> np.ndarray:
        outputs = []
        for start in range(0, len(inputs), self.micro_batch):
            part = inputs[start : start + self.micro_batch]
            missing = self.micro_batch - len(part)
            padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            outputs.append(np.asarray(function(padded))[: len(part)])
        return np.concatenate(outputs)

    def _check_images(self, images: np.ndarray) -> None:
        if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
            raise UserError(f"images must be [B, H, W, 3], not {list(images.shape)}")
        height, width = images.shape[1:3]
        if height % self.factor or width % self.factor:
            raise UserError(
                f"images are {height}x{width}; both sides must be multiples of "
                f"{self.factor}: pad or resize them, or use `movq encode`, which does"
            )
        if jnp.issubdtype(images.dtype, jnp.floating):  # also bfloat16
            low, high = float(images.min()), float(images.max())
            if not (low >= -1.001 and high <= 1.001):
                raise UserError(
                    f"float images must lie in [-1, 1], these span {low:g} to "
                    f"{high:g}; give uint8 for 0..255"
                )
        elif images.dtype != np.uint8:
            raise UserError(f"images must be uint8 or float, not {images.dtype}")

    def check_ids(self, ids: np.ndarray) -> None:
        if ids.ndim != 4 or ids.shape[-1] != self.num_channels or 0 in ids.shape:
            raise UserError(
                f"ids must be [B, h, w, {self.num_channels}], not {list(ids.shape)}"
            )
        if not np.issubdtype(ids.dtype, np.integer):
            raise UserError(f"ids must be integers, not {ids.dtype}")
        for channel, size in enumerate(self.codebook_sizes):
            low, high = int(ids[..., channel].min()), int(ids[..., channel].max())
            if low < 0 or high >= size:
                raise UserError(
                    f"ids must lie in 0..{size - 1} in channel {channel} "
                    f"({self.channel_books[channel]}), these span {low}..{high}: were "
                    "they made by another model?"
                )

    def codes_in_effect(self) -> dict[str, np.ndarray]:
        """All codes of each book, [K, d] float32: what indices stand for.

        They are computed once, at loading; of a book under a transformer this is its
        output.
        """
        books = self._variables["cache"]["quantize"]
        return {book: np.asarray(entry["codes"]) for book, entry in books.items()}


def inference_variables(module: Tokenizer, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters on the device, and what the codes of each book are in effect.

    Of a book under a transformer these are its output: computed here, once, and not
    again at each call.
    """
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    find = jax.jit(lambda v: module.apply(v, method="codes_in_effect"))
    codes = {book: {"codes": array} for book, array in find(variables).items()}
    return {**variables, "cache": {"quantize": codes}}


def default_micro_batch() -> int:
    """Images a compiled call on this kind of device, unless something else is asked."""
    return 1 if jax.default_backend() == "cpu" else 8


def _expected(module: Tokenizer) -> dict[str, Any]:
    """The parameters as `jax.ShapeDtypeStruct`s."""
    image = jnp.zeros((1, module.factor, module.factor, 3))
    return jax.eval_shape(module.init, jax.random.key(0), image)["params"]


def _clipped(tokenizer: Any, ids: jax.Array) -> jax.Array:
    return jnp.clip(tokenizer.decode_ids(ids), -1.0, 1.0)
