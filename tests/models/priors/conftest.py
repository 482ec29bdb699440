"""Tiny priors, and how tests draw from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.priors import NEG_INF, MaskedPrior, Tokens, build_prior

COMMON = {
    "width": 16,
    "depth": 2,
    "heads": 2,
    "dropout": 0.0,
    "channels": {"name": "depth", "depth": 2},
    "num_classes": 3,
    "attention": "xla",
    "dtype": "float32",
}
MODELS = {
    "masked": COMMON | {"name": "masked", "mlp": 32},
    "autoregressive": COMMON | {"name": "autoregressive"},
}
TOKENS = {
    "one": Tokens((2, 3), (9,), ("a",)),
    "shared": Tokens((2, 3), (9, 9, 9), ("a", "a", "a")),
    "dual": Tokens((2, 3), (9, 6), ("global", "local")),
}


class Setup:
    """A prior with random parameters, random indices, and its methods, compiled."""

    def __init__(self, fill, name, tokens="dual", remat=False, **changes):
        self.tokens = TOKENS[tokens]
        self.prior = build_prior(MODELS[name] | changes, self.tokens, remat=remat)
        rng, batch = np.random.default_rng(0), 2
        shape = (batch, self.tokens.num_positions, self.tokens.num_channels)
        ids = rng.integers(0, self.tokens.codebook_sizes, shape)
        self.ids = jnp.asarray(ids, jnp.int32)
        self.known = jnp.asarray(rng.random(shape) < 0.5)
        self.labels = jnp.asarray([0, 3], jnp.int32)
        inputs = (self.ids, self.labels)
        if isinstance(self.prior, MaskedPrior):
            inputs = (self.ids, self.known, self.labels, self.ids)
        self.inputs = inputs
        self.variables = {"params": fill(self.prior, *inputs)}
        self._compiled = {}

    def run(self, *args, method=None, key=None, **options):
        """The method, compiled once for the same options; `key` is that of dropout."""
        name = (method, *sorted(options.items()))
        if name not in self._compiled:

            def apply(variables, key, *args):
                rngs = None if key is None else {"dropout": key}
                return self.prior.apply(
                    variables, *args, method=method, rngs=rngs, **options
                )

            self._compiled[name] = jax.jit(apply)
        return self._compiled[name](self.variables, key, *args)

    def shape(self, *args, **options):
        """Shape and dtype of what `run` returns, of which nothing is computed."""
        return jax.eval_shape(lambda *args: self.run(*args, **options), *args)

    def gradients(self, weights):
        """Of the sum of weights times log p, in training."""

        def loss(params):
            rngs = {"dropout": jax.random.key(1)}
            variables = {"params": params}
            logits = self.prior.apply(variables, *self.inputs, train=True, rngs=rngs)
            return jnp.sum(weights * jax.nn.log_softmax(logits))

        return jax.jit(jax.grad(loss))(self.variables["params"])

    def features(self, ids=None, known=None, labels=None):
        given = zip((ids, known, labels), self.inputs, strict=False)
        args = [default if new is None else new for new, default in given]
        return np.asarray(self.run(*args, method="features"))


@pytest.fixture
def setup(fill):
    """(name, tokens name, **changes of the model section) -> a `Setup`."""
    return lambda *args, **changes: Setup(fill, *args, **changes)


@pytest.fixture
def greedy():
    """The choice of the likeliest under the first stream."""

    def choose(m, logits):
        log_p = jax.nn.log_softmax(logits[0])
        return jnp.argmax(log_p, axis=-1), jnp.max(log_p, axis=-1)

    return choose


@pytest.fixture
def sample():
    """A choice at random, from logits that are flat wherever there is a code."""

    def choose(m, logits):
        flat = jnp.where(logits[0] > NEG_INF, 0.0, NEG_INF)
        ids = jax.random.categorical(jax.random.key(5), flat)
        log_p = jax.nn.log_softmax(logits[0])
        return ids, jnp.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]

    return choose
