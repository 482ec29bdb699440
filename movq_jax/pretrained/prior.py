"""A trained prior with its tokenizer, ready to draw from in Python."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError
from movq_jax.models.priors import build_prior
from movq_jax.models.priors.tokens import Tokens
from movq_jax.pretrained.bundle import check_fit
from movq_jax.pretrained.classes import balanced_labels, class_numbers
from movq_jax.pretrained.drawn import (
    MAX_IMAGES,
    MAX_SEED,
    as_given,
    as_labels,
    as_numbers,
    check_whole,
)
from movq_jax.pretrained.micro_batches import MicroBatches
from movq_jax.pretrained.prior_bundle import PriorBundle
from movq_jax.pretrained.steps import Steps, masked_steps, row_steps
from movq_jax.pretrained.tokenizer import PretrainedTokenizer, default_micro_batch
from movq_jax.sampling.autoregressive import decode_autoregressive
from movq_jax.sampling.keys import image_keys
from movq_jax.sampling.likelihood import (
    nll_autoregressive,
    nll_masked,
    surprise,
)
from movq_jax.sampling.masked import decode_masked
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.plan import Plan, autoregressive_plan, masked_plan

_FIELDS = tuple(field.name for field in dataclasses.fields(SampleOptions))
_USED_BY_ALL = ("temperature", "top_k", "top_p", "guidance", "guidance_schedule")

Devices = Sequence[jax.Device] | None


class Likelihood(NamedTuple):
    """The negative log likelihood of images, in nats."""

    total: np.ndarray  # float32 [B]
    per_channel: np.ndarray  # float32 [B, M]


class PretrainedPrior:
    """Draws grids of indices, with the averaged weights of a run.

    Attributes:
      tokenizer: makes images of the indices.
      tokens: which indices the prior models.
      kind: 'masked' or 'autoregressive'.
      grid: (h, w).
      num_channels: M, indices a position.
      codebook_sizes: of each channel.
      num_classes: 0 for an unconditional prior.
      classes: their names; empty where they have none.
      options: what is drawn with, unless `sample` is told otherwise.
      config: the prior's model section.
      protocol: how the weights came to be.
      fingerprint: 64 hex digits that tell this model from others.
      micro_batch: images a compiled call on each device; the last one is padded. At a
        given micro-batch an image depends neither on those beside it nor on how many
        devices work. 8 on the CPU and 32 elsewhere by default.
    """

    def __init__(self, bundle: PriorBundle, *, micro_batch: int | None = None) -> None:
        default = 8 if jax.default_backend() == "cpu" else 32
        prior, tokenizer = bundle
        self.micro_batch = micro_batch or default
        # A prior's micro-batch may be too much for a decoder, with its many pixels.
        fewer = min(self.micro_batch, default_micro_batch())
        self.tokenizer = PretrainedTokenizer(tokenizer, micro_batch=fewer)
        self.tokens = Tokens.of(prior.model["tokens"])
        self.config = prior.model["prior"]
        self._module = build_prior(self.config, self.tokens)
        self._params = jax.tree.map(jnp.asarray, prior.params)
        self._check_shapes()
        self.kind = self.config["name"]
        self.grid = tuple(self.tokens.grid)
        self.num_channels = self.tokens.num_channels
        self.codebook_sizes = tuple(self.tokens.codebook_sizes)
        self.num_classes = self.config["num_classes"]
        self.protocol = prior.protocol
        self.classes = self._class_names()
        self.options = self._default_options()
        self.fingerprint = prior.fingerprint
        self._workers: dict[tuple[jax.Device, ...], MicroBatches] = {}
        self._programs: dict[tuple, Callable[..., Any]] = {}

    def __repr__(self) -> str:
        h, w = self.grid
        return (
            f"PretrainedPrior({self.kind}, grid={h}x{w}, M={self.num_channels}, "
            f"classes={self.num_classes}, fingerprint={self.fingerprint[:12]})"
        )

    @property
    def num_units(self) -> int:
        """What is drawn as a whole: positions, or indices where each is drawn alone."""
        if self.kind == "masked" and self._module.whole_positions:
            return self.tokens.num_positions
        return self.tokens.units

    @property
    def knows_classes_alone(self) -> bool:
        """Whether it never learned to draw without a class, and so has no guidance."""
        # Bundles of older versions do not say.
        return bool(self.num_classes) and self.protocol.get("class_dropout") == 0

    @property
    def num_parameters(self) -> int:
        """Of the prior, without its tokenizer."""
        return sum(array.size for array in jax.tree.leaves(self._params))

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        h, w = self.grid
        return h * self.tokenizer.factor, w * self.tokenizer.factor

    def batch_size(self, devices: Devices = None) -> int:
        """Images of a call on all devices: fewer take as long."""
        return self.micro_batch * len(_all(devices))

    def chosen(self, **options: Any) -> dict[str, Any]:
        """What `sample(..., **options)` draws with, as plain values.

        Raises:
          UserError: an option makes no sense.
        """
        chosen = self._options(options)
        used = _USED_BY_ALL if self.kind == "autoregressive" else _FIELDS
        return {name: getattr(chosen, name) for name in used}

    def decode(self, ids: np.ndarray, *, devices: Devices = None) -> np.ndarray:
        """Indices [B, h, w, M] to uint8 images, with all devices of this process.

        Raises:
          UserError: wrong shape, dtype or range.
        """
        return self.tokenizer.decode(ids, devices=_all(devices))

    def sample(
        self,
        num: int,
        *,
        labels: Any = None,
        seed: int = 0,
        first: int | Sequence[int] = 0,
        ids: np.ndarray | None = None,
        known: np.ndarray | None = None,
        devices: Devices = None,
        **options: Any,
    ) -> np.ndarray:
        """Draws images as indices.

        Args:
          num: how many.
          labels: a class for each, or one for all, by number or name; by default all
            classes equally often, see `labels`.
          seed: from 0. An image is a function of the seed, its number, its class and
            what is known of it, and of `micro_batch`.
          first: the number of the first image: `sample(2, first=5)` draws the images
            5 and 6 of `sample(7)`. Or the number of each.
          ids: integers [num, h, w, M], or [h, w, M] for all: where `known`, they stay.
          known: bool, of the same shape; needed with `ids`.
          devices: those that work; by default all of this process.
          **options: fields of `SampleOptions` that are to differ from `self.options`.

        Returns:
          int32 [num, h, w, M], for `self.tokenizer.decode`.

        Raises:
          UserError: an argument is wrong.
        """
        images = self._images(num, labels, seed, first, ids, known)
        plan = self._plan(options)
        drawn = self._run(self._sample, images, seed, devices, plan)
        return drawn.reshape(num, *self.grid, self.num_channels)

    def trace(
        self,
        num: int,
        *,
        labels: Any = None,
        seed: int = 0,
        first: int | Sequence[int] = 0,
        ids: np.ndarray | None = None,
        known: np.ndarray | None = None,
        devices: Devices = None,
        **options: Any,
    ) -> Steps:
        """Draws the same images as `sample`, and tells how they came to be.

        Of an autoregressive prior a step is a row, and the confidence is that of the
        finished image without temperature and guidance.

        Raises:
          UserError: an argument is wrong.
        """
        images = self._images(num, labels, seed, first, ids, known)
        plan = self._plan(options)
        shape = (num, *self.grid, self.num_channels)
        given = images["known"].reshape(shape)
        if self.kind == "masked":
            found = self._run(self._trace, images, seed, devices, plan)
            steps = (num, -1, *self.grid)
            ids, known = (x.reshape(*steps, self.num_channels) for x in found[:2])
            return masked_steps(Steps(ids, known, found[2].reshape(steps)), given)
        images["ids"] = self._run(self._sample, images, seed, devices, plan)
        log_p = self._run(self._log_p, images, seed, devices)
        return row_steps(images["ids"].reshape(shape), log_p.reshape(shape), given)

    def nll(
        self,
        ids: np.ndarray,
        labels: Any = None,
        *,
        samples: int = 8,
        seed: int = 0,
        devices: Devices = None,
    ) -> Likelihood:
        """How unlikely images are to the prior.

        Exact for an autoregressive prior; for a masked one an estimate of the upper
        bound, see `movq_jax.sampling.likelihood`.

        Args:
          ids: integers [B, h, w, M].
          labels: as for `sample`; needed by a class-conditional prior.
          samples: maskings an image, for a masked prior.
          seed: what is masked depends on it.
          devices: as for `sample`.

        Raises:
          UserError: an argument is wrong.
        """
        if self.num_classes and labels is None:
            raise UserError("nll needs the labels of the images: the prior has classes")
        check_whole("samples", samples, 1, MAX_IMAGES)
        ids = np.asarray(ids)
        if ids.ndim != 4:
            raise UserError(f"ids must be [B, h, w, M], not {list(ids.shape)}")
        everything = np.ones(ids.shape, bool)
        images = self._images(len(ids), labels, seed, 0, ids, everything)
        found = self._run(self._nll, images, seed, devices, static=samples)
        return Likelihood(*found)

    def labels(
        self,
        num: int,
        *,
        classes: Any = None,
        seed: int = 0,
        first: int | Sequence[int] = 0,
    ) -> np.ndarray:
        """The labels that `sample` draws with by default: balanced and shuffled.

        Args:
          num: how many.
          classes: names or numbers of those to draw, or one; by default all.
          seed: as for `sample`.
          first: the number of the first image, or of each.

        Returns:
          int32 [num]; zeros for an unconditional prior.

        Raises:
          UserError: there is no such class.
        """
        check_whole("num", num, 1, MAX_IMAGES)
        check_whole("seed", seed, 0, MAX_SEED)
        if classes is None and not self.num_classes:
            return np.zeros(num, np.int32)
        if classes is None:
            classes = range(self.num_classes)
        else:
            if isinstance(classes, (str, int, np.integer)):
                classes = [classes]
            classes = class_numbers(classes, self.classes, self.num_classes)
        return balanced_labels(classes, as_numbers(first, num), seed=seed)

    def _images(
        self, num: int, labels: Any, seed: int, first: Any, ids: Any, known: Any
    ) -> dict[str, np.ndarray]:
        """What there is of each image, checked."""
        check_whole("num", num, 1, MAX_IMAGES)
        check_whole("seed", seed, 0, MAX_SEED)
        index = as_numbers(first, num)
        if labels is None:
            labels = self.labels(num, seed=seed, first=index)
        else:
            labels = as_labels(labels, num, self.classes, self.num_classes)
        if self.knows_classes_alone and (labels == self.num_classes).any():
            raise UserError(
                f"the label {self.num_classes} means no class, and this prior never "
                "learned to draw without one (its class_dropout was 0): give a class"
            )
        shape = (*self.grid, self.num_channels)
        ids, known = as_given(ids, known, num, shape)
        self.tokenizer.check_ids(ids)
        flat = (num, self.tokens.num_positions, self.num_channels)
        return {
            "index": index,
            "ids": ids.astype(np.int32).reshape(flat),
            "known": known.reshape(flat),
            "labels": labels,
        }

    def _plan(self, changed: dict[str, Any]) -> Plan:
        make = masked_plan if self.kind == "masked" else autoregressive_plan
        return make(self._module, self._options(changed))

    def _options(self, changed: dict[str, Any]) -> SampleOptions:
        fields = {name: getattr(self.options, name) for name in _FIELDS}
        options = SampleOptions.of({**fields, **changed})
        if options.guidance and self.knows_classes_alone:
            raise UserError(
                f"guidance is {options.guidance}, but it leads away from drawing "
                "without a class, and this prior never learned that (its class_dropout "
                "was 0): set it to 0"
            )
        return options

    def _run(
        self,
        function: Callable[..., Any],
        images: Any,
        seed: int,
        devices: Devices,
        plan: Plan | None = None,
        static: int | None = None,
    ) -> Any:
        """Calls a method in micro-batches over the devices, compiled once.

        The method takes variables, the images with their keys, and `plan` or `static`.
        """
        devices = _all(devices)
        if devices not in self._workers:
            variables = {"params": self._params}
            self._workers[devices] = MicroBatches(variables, self.micro_batch, devices)
        workers = self._workers[devices]
        key = (function.__name__, static, devices)
        if key not in self._programs:

            def program(variables, shared, images):
                seed, plan = shared
                keyed = images | {"keys": image_keys(seed, images["index"])}
                return function(variables, keyed, plan if static is None else static)

            self._programs[key] = workers.compiled(program)
        return workers.run(self._programs[key], (np.uint32(seed), plan), images)

    def _sample(self, variables, images, plan):
        decode = decode_masked if self.kind == "masked" else decode_autoregressive
        return decode(self._module, variables, **_start(images), options=plan)

    def _trace(self, variables, images, plan):
        start = _start(images)
        _, trace = decode_masked(
            self._module, variables, **start, options=plan, trace=True
        )
        steps = trace.ids, trace.known, trace.confidence
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)  # images in front

    def _log_p(self, variables, images, _):
        """log p of each index [B, N, M], given those before it."""
        logits = self._module.apply(variables, images["ids"], images["labels"])
        return -surprise(logits, images["ids"])

    def _nll(self, variables, images, samples):
        ids, labels = images["ids"], images["labels"]
        if self.kind != "masked":
            return nll_autoregressive(self._module, variables, ids, labels)
        keys = images["keys"]
        return nll_masked(self._module, variables, keys, ids, labels, samples=samples)

    def _class_names(self) -> tuple[str, ...]:
        names = self.protocol["classes"]
        good = isinstance(names, (list, tuple))
        good = good and all(isinstance(name, str) for name in names)
        if not good or len(names) not in (0, self.num_classes):
            raise UserError(
                f"protocol.classes in its config.json is {names!r:.60}, but must be a "
                f"list of {self.num_classes} names, or empty"
            )
        return tuple(names)

    def _default_options(self) -> SampleOptions:
        options = SampleOptions.of(self.protocol["sample"])
        for name in ("temperature", "top_k", "top_p"):
            options.per_channel(name, self.num_channels)
        return options

    def _check_shapes(self) -> None:
        ids = jnp.zeros((1, self.tokens.num_positions, self.tokens.num_channels), int)
        labels = jnp.zeros(1, int)
        inputs = (ids, ids == 0, labels, ids)
        if self.config["name"] != "masked":
            inputs = (ids, labels)
        expected = jax.eval_shape(self._module.init, jax.random.key(0), *inputs)
        check_fit(expected["params"], self._params)


def _start(images: dict[str, Any]) -> dict[str, Any]:
    return {name: images[name] for name in ("keys", "ids", "known", "labels")}


def _all(devices: Devices) -> tuple[jax.Device, ...]:
    devices = tuple(jax.local_devices() if devices is None else devices)
    if not devices:
        raise UserError("devices is empty: name one, or leave it out for all")
    return devices
