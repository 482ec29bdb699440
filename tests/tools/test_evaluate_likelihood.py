import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import movq_jax
from movq_jax.errors import UserError
from movq_jax.evaluation.image_sets import Item
from movq_jax.models.priors import build_prior
from movq_jax.pretrained.prior_bundle import read_prior_bundle
from movq_jax.sampling.keys import image_keys
from movq_jax.sampling.likelihood import nll_autoregressive, nll_masked
from movq_jax.tools.evaluate_likelihood import likelihood


class Split:
    """Three images of noise with labels, as `DatasetImages` has them."""

    name = "noise"

    def __init__(self, labels=(0, 2, 1), size=16):
        rng = np.random.default_rng(0)
        shape = (len(labels), size, size, 3)
        self.images = rng.integers(0, 256, shape, dtype=np.uint8)
        self._labels = np.asarray(labels)

    def __len__(self):
        return len(self.images)

    def labels(self):
        return self._labels

    def items(self, refuse):
        for number, image in enumerate(self.images):
            yield Item(f"{number}", image)


def measured(prior, split, config=None):
    done = []
    record = likelihood(
        prior,
        split,
        lambda image: image,
        config=config,
        refuse=lambda where, reason: pytest.fail(reason),
        advance=done.append,
    )
    assert sum(done) == len(split)
    return record


@pytest.mark.parametrize("kind", ["masked", "autoregressive"])
def test_bits_are_those_of_the_likelihood(kind, tiny_prior_bundle, tiny_ar_bundle):
    path = tiny_prior_bundle if kind == "masked" else tiny_ar_bundle
    prior, split = movq_jax.load(path), Split()
    config = {"seed": 5, "eval": {"nll_samples": 3}}
    record = measured(prior, split, config)
    # As the evaluation step in training has it.
    bundle = read_prior_bundle(path / "model").prior
    module = build_prior(bundle.model["prior"], prior.tokens)
    variables = {"params": jax.tree.map(jnp.asarray, bundle.params)}
    ids = jnp.asarray(prior.tokenizer.encode(split.images).reshape(3, 16, 2))
    labels = jnp.asarray(split.labels())
    if kind == "masked":
        keys = image_keys(5, jnp.arange(3))
        nats, _ = nll_masked(module, variables, keys, ids, labels, samples=3)
        assert (record["maskings"], record["seed"]) == (3, 5)
    else:
        nats, _ = nll_autoregressive(module, variables, ids, labels)
    bits = np.asarray(nats) / math.log(2)
    assert record["bits_per_image"] == pytest.approx(bits.mean(), rel=1e-5)
    assert record["value"] == pytest.approx(bits.mean() / 32, rel=1e-5)
    assert record["low"] <= record["value"] <= record["high"]
    assert record["count"] == 3 and not record["higher_is_better"]
    assert record["split"] == "noise"
    assert record["tokenizer"] == prior.tokenizer.fingerprint
    again = measured(prior, Split(labels=(0, 1, 1)), config)
    assert record["fingerprint"] == again["fingerprint"]
    split.images[0, 0, 0] ^= 1
    assert measured(prior, split, config)["fingerprint"] != record["fingerprint"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            Split(labels=(0, 3, 1)),
            "has the label 3, but the prior has the classes 0 to",
        ),
        (Split(labels=(0, -1, 1)), "noise has an image without a label"),
        (Split(size=20), "0 is 20 x 20 when it is ready.*give --image-size=16"),
    ],
)
def test_other_data(tiny_prior_bundle, split, message):
    with pytest.raises(UserError, match=message):
        measured(movq_jax.load(tiny_prior_bundle), split)
