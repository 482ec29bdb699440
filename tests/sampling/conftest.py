"""Priors whose conditionals are exact, of a joint distribution that can be listed."""

import itertools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.priors import NEG_INF, Tokens, build_prior

GRID, CHANNELS = (2, 2), 2
TOKENS = Tokens(GRID, (2,) * CHANNELS, ("book",) * CHANNELS)
# All grids there are: [256, N, M].
STATES = np.array(list(itertools.product(range(2), repeat=TOKENS.units)), np.int32)
STATES = STATES.reshape(-1, TOKENS.num_positions, CHANNELS)


def joint(seed=0):
    """A probability for each of `STATES`, float64 [256], with strong dependences."""
    rng = np.random.default_rng(seed)
    spins = 2.0 * STATES.reshape(len(STATES), -1) - 1
    couplings = 0.1 * rng.standard_normal((8, 8))
    energy = np.einsum("su,uv,sv->s", spins, couplings, spins)
    energy += 0.3 * np.sum(spins[:, 0::2] * spins[:, 1::2], axis=-1)
    energy += 0.1 * rng.standard_normal(len(STATES))
    p = np.exp(energy)
    return p / p.sum()


def codes_of(ids):
    """Which of `STATES` grids [B, N, M] are, int [B]."""
    bits = np.asarray(ids).reshape(len(ids), -1)
    return bits @ (2 ** np.arange(bits.shape[-1])[::-1])


def fits_of(ids, known):
    """Whether each state has the known indices: [B, N, M] both -> bool [B, 256]."""
    ones = jnp.asarray(STATES.reshape(len(STATES), -1).T, jnp.float32)
    bits, known = (x.reshape(len(x), -1).astype(jnp.float32) for x in (ids, known))
    # Indices are 0 or 1: a matrix product counts those that differ.
    differ = (known * bits) @ (1 - ones) + (known * (1 - bits)) @ ones
    return differ == 0


def conditional(weights, m):
    """Weights of states [..., N, 256] -> logits of channel m [..., N, 2]."""
    is_code = jnp.asarray(STATES)[:, :, m, None] == jnp.arange(2)[None, None]
    return to_logits(jnp.einsum("...ns,snk->...nk", weights, 1.0 * is_code))


def to_logits(p):
    return jnp.maximum(jnp.log(p), NEG_INF)


class ExactMasked(nn.Module):
    """A masked prior: a feature is the weights of all states, given what is known.

    Attributes:
      mode: 'depth', 'independent' or 'parallel'.
      num_classes: each has a joint of its own, and so has no class.
    """

    mode: str
    num_classes: int = 0
    tokens: Tokens = TOKENS

    @property
    def whole_positions(self):
        return self.mode != "independent"

    def setup(self):
        shape = (self.num_classes + 1, len(STATES))
        self.joint = self.param("joint", nn.initializers.zeros, shape)

    def __call__(self, ids, known, labels, targets):
        return self.logits(self.features(ids, known, labels), targets)

    def features(self, ids, known, labels):
        rows = labels if self.num_classes else jnp.zeros_like(labels)
        weights = jnp.where(fits_of(ids, known), self.joint[rows], 0.0)
        shape = (len(ids), self.tokens.num_positions, len(STATES))
        return jnp.broadcast_to(weights[:, None], shape)

    def logits(self, features, ids):
        logits = []
        for m in range(CHANNELS):
            logits.append(conditional(features, m))
            features = self._given(features, ids[:, :, m], m)
        return jnp.stack(logits, axis=2)

    def draw(self, features, choose):
        chosen = []
        for m in range(CHANNELS):
            chosen.append(choose(m, conditional(features, m)))
            features = self._given(features, chosen[-1][0], m)
        return tuple(jnp.stack(x, axis=-1) for x in zip(*chosen, strict=True))

    def _given(self, features, ids, m):
        """Weights [..., B, N, 256] given channel m of the position, too."""
        if self.mode != "depth":
            return features
        fits = jnp.asarray(STATES.T)[m][None] == ids[..., None]
        fits = fits.reshape((1,) * (features.ndim - fits.ndim) + fits.shape)
        return jnp.where(fits, features, 0.0)


class ExactAutoregressive(nn.Module):
    """An autoregressive prior: the cache is the weights of states so far.

    A feature is these, and the step, which `draw` must know here.
    """

    mode: str  # 'depth' or 'flat'
    num_classes: int = 0
    tokens: Tokens = TOKENS

    @property
    def num_steps(self):
        tokens = self.tokens
        return tokens.units if self.mode == "flat" else tokens.num_positions

    def setup(self):
        shape = (self.num_classes + 1, len(STATES))
        self.joint = self.param("joint", nn.initializers.zeros, shape)

    def __call__(self, ids, labels):
        weights, logits = self._start(labels), []
        for n, m in np.ndindex(self.tokens.num_positions, CHANNELS):
            logits.append(self._unit(weights, n, m))
            weights = self._given(weights, ids[:, n, m], n, m)
        return jnp.stack(logits, axis=1).reshape(*ids.shape, 2)

    def init_cache(self, batch):
        return jnp.zeros((batch, len(STATES)))

    def step(self, cache, position, previous, labels):
        weights = cache
        for i in range(previous.shape[1]):
            unit = (position - 1) * previous.shape[1] + i
            n, m = unit // CHANNELS, unit % CHANNELS
            weights = self._given(weights, previous[:, i], n, m)
        weights = jnp.where(position == 0, self._start(labels), weights)
        place = jnp.full((len(weights), 1), position, weights.dtype)
        return jnp.concatenate([weights, place], axis=1)[:, None], weights

    def draw(self, features, choose, t=0):
        weights = features[:, :, 0, :-1]
        position = features[0, 0, 0, -1].astype(jnp.int32)
        if self.mode == "flat":
            n, m = t // CHANNELS, t % CHANNELS
            drawn = choose(m, self._unit(weights, n, m)[:, :, None])
            return tuple(x[..., None] for x in drawn)
        chosen = []
        for m in range(CHANNELS):
            logits = self._unit(weights, position, m)
            chosen.append(choose(m, logits[:, :, None]))
            weights = self._given(weights, chosen[-1][0][:, 0][None], position, m)
        return tuple(jnp.stack(x, axis=-1) for x in zip(*chosen, strict=True))

    def _start(self, labels):
        rows = labels if self.num_classes else jnp.zeros_like(labels)
        return self.joint[rows]

    def _unit(self, weights, n, m):
        is_code = jnp.asarray(STATES)[:, n, m][:, None] == jnp.arange(2)[None]
        return to_logits(weights @ (1.0 * is_code))

    def _given(self, weights, ids, n, m):
        fits = jnp.asarray(STATES)[:, n, m].reshape((1,) * ids.ndim + (-1,))
        return jnp.where(fits == ids[..., None], weights, 0.0)


def variables(*joints):
    """The variables of an exact prior: joints of the classes, then of no class."""
    return {"params": {"joint": jnp.asarray(np.stack(joints), jnp.float32)}}


@pytest.fixture(scope="session")
def exact():
    """The exact priors, and what there is to know of their joint."""
    return SimpleNamespace(
        masked=ExactMasked,
        autoregressive=ExactAutoregressive,
        tokens=TOKENS,
        states=STATES,
        joint=joint,
        codes_of=codes_of,
        variables=variables,
    )


def tiny_prior(name, channels, *, grid=(4, 4), sizes=(11, 11), num_classes=3):
    """A small prior: 'masked' or 'autoregressive', and how it models channels."""
    fields = {"depth": 1} if channels == "depth" else {}
    model = {
        "name": name,
        "width": 16,
        "depth": 2,
        "heads": 2,
        "dropout": 0.0,
        "channels": {"name": channels, **fields},
        "num_classes": num_classes,
        "attention": "xla",
        "dtype": "float32",
    }
    if name == "masked":
        model["mlp"] = 32
    return build_prior(model, Tokens(grid, sizes, ("book",) * len(sizes)))


@pytest.fixture(scope="session")
def _made():
    return {}


@pytest.fixture
def drawn_params(fill, _made):
    """Makes variables of a real prior whose logits vary, but by little."""

    def make(module, *inputs):
        def calm(path, array):
            is_output = path[-1].key.startswith(("table_", "kernel_"))
            return 0.3 * array if is_output else array

        if module not in _made:
            params = fill(module, *inputs)
            params = jax.tree_util.tree_map_with_path(calm, params)
            _made[module] = {"params": params}
        return _made[module]

    return make


@pytest.fixture(scope="session")
def tiny():
    """The function `tiny_prior`."""
    return tiny_prior
