import json

import jax
import numpy as np
import pytest

import movq_jax
from movq_jax.errors import UserError
from movq_jax.pretrained.prior_bundle import read_prior_bundle, write_prior_bundle


@pytest.fixture(scope="module")
def prior(tiny_prior_bundle):
    return movq_jax.load(tiny_prior_bundle, micro_batch=2)


@pytest.fixture(scope="module")
def ar(tiny_ar_bundle):
    return movq_jax.load(tiny_ar_bundle, micro_batch=2)


@pytest.fixture(params=["masked", "autoregressive"])
def either(request, prior, ar):
    return {"masked": prior, "autoregressive": ar}[request.param]


ONE = jax.devices()[:1]


def test_what_a_prior_tells_of_itself(prior):
    assert (prior.kind, prior.grid, prior.num_channels) == ("masked", (4, 4), 2)
    assert prior.codebook_sizes == (32, 32) and prior.num_classes == 3
    assert prior.classes == ("cat", "dog", "sea horse") and prior.options.steps == 3
    assert prior.image_size == (16, 16) and prior.protocol["weights"] == "random"
    assert repr(prior) == (
        f"PretrainedPrior(masked, grid=4x4, M=2, classes=3, "
        f"fingerprint={prior.fingerprint[:12]})"
    )


def test_all_devices_draw_what_one_draws(either):
    """To the bit, and whatever stands beside an image in its batch."""
    assert len(jax.local_devices()) == 8
    on_all = either.sample(19, seed=3)
    assert on_all.shape == (19, 4, 4, 2) and on_all.dtype == np.int32
    assert on_all.min() >= 0 and 16 < on_all.max() < 32
    np.testing.assert_array_equal(either.sample(19, seed=3, devices=ONE), on_all)
    np.testing.assert_array_equal(either.sample(6, seed=3, first=5), on_all[5:11])
    alone = either.sample(1, seed=3, first=18, devices=ONE)
    np.testing.assert_array_equal(alone, on_all[18:])
    assert len(np.unique(on_all, axis=0)) == 19  # no image twice
    assert np.mean(either.sample(19, seed=4) == on_all) < 0.9


def test_given_indices_stay(either):
    ids = either.sample(3, seed=1)
    known = np.random.default_rng(0).random(ids.shape) < 0.4
    again = either.sample(3, seed=2, ids=np.where(known, ids, 10**6), known=known)
    np.testing.assert_array_equal(again[known], ids[known])
    assert (again != ids).any()
    everything = np.ones(ids.shape[1:], bool)
    same = either.sample(2, ids=ids[0], known=everything)  # one grid for both
    np.testing.assert_array_equal(same, ids[:1].repeat(2, axis=0))


def test_labels_are_balanced_and_belong_to_their_images(prior):
    labels = prior.labels(31, seed=5)
    assert sorted(np.bincount(labels)) == [10, 10, 11]
    np.testing.assert_array_equal(prior.labels(9, seed=5, first=4), labels[4:13])
    np.testing.assert_array_equal(prior.labels(2, seed=5, first=[7, 3]), labels[[7, 3]])
    assert (prior.labels(31, seed=6) != labels).any()
    runs = labels[:30].reshape(10, 3)
    assert len(np.unique(runs, axis=0)) > 1  # not the same order each time
    assert set(prior.labels(8, classes=["Dog", 2, "0"])) == {0, 1, 2}
    assert set(prior.labels(8, classes=["sea horse"])) == {2}


def test_a_class_makes_a_difference(either):
    by_name = either.sample(3, labels="dog", seed=1)
    np.testing.assert_array_equal(either.sample(3, labels=1, seed=1), by_name)
    each = either.sample(3, labels=[1, np.int64(0), 3], seed=1)  # 3: no class
    np.testing.assert_array_equal(each[0], by_name[0])
    nlls = [either.nll(by_name, k, samples=1).total for k in ("dog", 0, 3)]
    assert (nlls[0] != nlls[1]).all() and (nlls[1] != nlls[2]).all()
    default = either.sample(3, labels=either.labels(3, seed=1), seed=1)
    np.testing.assert_array_equal(either.sample(3, seed=1), default)


def test_options_and_their_defaults(prior):
    assert prior.chosen()["steps"] == 3
    assert prior.chosen(steps=5)["steps"] == 5 and prior.options.steps == 3
    np.testing.assert_array_equal(prior.sample(2), prior.sample(2, steps=3))
    greedy = prior.sample(2, temperature=0, choice_temperature=0, labels=0)
    np.testing.assert_array_equal(greedy[0], greedy[1])
    with_guidance = prior.sample(2, seed=1, guidance=50.0)
    assert (with_guidance != prior.sample(2, seed=1)).any()


def test_other_numbers_are_not_compiled_again(ar):
    ar.sample(1, temperature=0.9, devices=ONE)
    program = ar._programs["_sample", None, tuple(ONE)]
    before = program._cache_size()
    ar.sample(1, temperature=0.5, seed=9, devices=ONE)
    assert program._cache_size() == before


def test_a_trace_ends_in_the_sample(prior):
    steps = prior.trace(3, seed=3, first=1)
    assert steps.ids.shape == (3, 3, 4, 4, 2) == steps.known.shape
    assert steps.confidence.shape == (3, 3, 4, 4) and steps.confidence.max() <= 0
    np.testing.assert_array_equal(steps.ids[:, -1], prior.sample(3, seed=3, first=1))
    known = steps.known.all(axis=-1)
    assert (known[:, 1:] | ~known[:, :-1]).all()  # what is known stays so
    assert known[:, -1].all() and not known[:, 0].all()


def test_a_trace_of_rows(ar):
    steps = ar.trace(2, seed=3)
    assert steps.ids.shape == (2, 4, 4, 4, 2)
    np.testing.assert_array_equal(steps.ids[:, -1], ar.sample(2, seed=3))
    np.testing.assert_array_equal(steps.known[0, :, :, 0, 0], np.tri(4, dtype=bool))
    nll = ar.nll(steps.ids[:, 0], ar.labels(2, seed=3))
    log_p = steps.confidence[:, -1].sum(axis=(1, 2)) * 2
    np.testing.assert_allclose(nll.total, -log_p, rtol=1e-5)


def test_likelihoods(either):
    ids = either.sample(3)
    nll = either.nll(ids, [0, 1, 2], samples=2, devices=ONE)
    assert nll.total.shape == (3,) and nll.per_channel.shape == (3, 2)
    np.testing.assert_allclose(nll.per_channel.sum(axis=1), nll.total, rtol=1e-5)
    assert (nll.total > 0).all()
    on_all = either.nll(ids, [0, 1, 2], samples=2)
    np.testing.assert_array_equal(on_all.total, nll.total)


def test_decoding_on_all_devices_gives_the_same_bits(prior):
    ids = prior.sample(11)
    np.testing.assert_array_equal(prior.decode(ids), prior.tokenizer.decode(ids))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "num is 0; give a whole number from 1"),
        ({"num": 2.0}, "num is 2.0; give a whole number"),
        ({"seed": -1}, "seed is -1; give a whole number from 0"),
        ({"seed": 2**32}, "seed is 4294967296; .* to 4294967295"),
        ({"first": 2**31 - 1}, "first is 2147483647; .* from 0 to 2147483645"),
        ({"first": [1]}, "there are 1 numbers for 2 images"),
        ({"steps": 0}, "steps is 0"),
        ({"step": 3}, "no field 'step'; did you mean 'steps'?"),
        ({"temperature": (1.0, 1.0, 1.0)}, "3 values, but the prior has 2 channels"),
        ({"labels": "dogg"}, "no class 'dogg'; did you mean 'dog'"),
        ({"labels": 4}, "there is no class 4: give numbers 0 to 2"),
        ({"labels": [0]}, "there are 1 labels for 2 images"),
        ({"labels": 1.0}, "labels is 1.0; give a class by name or number"),
        ({"top_k": 2**31}, "sample.top_k is 2147483648"),
        ({"ids": np.zeros((4, 4, 2), int)}, "give both `ids` and `known`"),
        (
            {"ids": np.zeros((4, 2, 2), int), "known": np.ones((4, 4, 2), bool)},
            r"ids must be \[2, 4, 4, 2\] or \[4, 4, 2\], not \[4, 2, 2\]",
        ),
        (
            {"ids": np.full((4, 4, 2), 32), "known": np.ones((4, 4, 2), bool)},
            r"must lie in 0..31 in channel 0",
        ),
        (
            {"ids": np.zeros((4, 4, 2), int), "known": np.ones((4, 4, 2), int)},
            "known must be bool",
        ),
    ],
)
def test_what_is_refused(prior, arguments, message):
    with pytest.raises(UserError, match=message):
        prior.sample(**{"num": 2, **arguments})


def test_likelihoods_are_of_whole_images(prior):
    with pytest.raises(UserError, match=r"ids must be \[B, h, w, M\], not \[4, 4, 2\]"):
        prior.nll(np.zeros((4, 4, 2), int), labels=0)


def test_no_class_is_no_choice(prior):
    with pytest.raises(UserError, match="no class is named"):
        prior.labels(3, classes=[])
    with pytest.raises(UserError, match="devices is empty"):
        prior.sample(1, devices=[])
    with pytest.raises(UserError, match="num is 2.5; give a whole number"):
        prior.labels(2.5)
    np.testing.assert_array_equal(prior.labels(3, classes="dog"), [1, 1, 1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "is None, but must be a list of 3 names"),
        (["a"], "but must be a list of 3 names, or empty"),
        ([0, 1, 2], "but must be a list of 3 names"),
    ],
)
def test_class_names_that_are_none(names, message, make_prior_bundle, tiny_masked):
    with pytest.raises(UserError, match=message):
        movq_jax.load(make_prior_bundle(tiny_masked, names))


def test_numbers_are_never_names(make_prior_bundle, tiny_masked):
    prior = movq_jax.load(make_prior_bundle(tiny_masked, ("2", "1", "0")))
    np.testing.assert_array_equal(prior.labels(2, classes=[2]), [2, 2])
    np.testing.assert_array_equal(prior.labels(2, classes=["2"]), [0, 0])


def test_options_of_a_bundle_that_do_not_fit(make_prior_bundle, tiny_masked):
    with pytest.raises(UserError, match="sample.temperature has 3 values"):
        movq_jax.load(make_prior_bundle(tiny_masked, temperature=(1.0, 1.0, 1.0)))


def test_a_prior_without_classes(make_prior_bundle, tiny_masked):
    prior = movq_jax.load(make_prior_bundle(tiny_masked | {"num_classes": 0}, ()))
    assert prior.micro_batch == 8 and prior.classes == ()
    assert (prior.labels(3) == 0).all()
    for wrong in ({"labels": 0}, {"labels": "cat"}):
        with pytest.raises(UserError, match="this prior is unconditional"):
            prior.sample(1, **wrong)
    with pytest.raises(UserError, match="the prior has no classes to be guided by"):
        prior.sample(1, guidance=1.0)


def test_a_prior_that_never_went_without_a_class(make_prior_bundle, tiny_masked):
    config = make_prior_bundle(tiny_masked) / "model/config.json"
    record = json.loads(config.read_text())
    record["protocol"]["class_dropout"] = 0.0
    config.write_text(json.dumps(record))
    prior = movq_jax.load(config.parent)
    with pytest.raises(UserError, match="guidance is 1.5, but .* never learned that"):
        prior.sample(1, guidance=1.5)
    with pytest.raises(UserError, match="the label 3 means no class, and this prior"):
        prior.sample(1, labels=3)


def test_weights_that_do_not_fit(make_prior_bundle, tiny_masked, tmp_path):
    workdir = make_prior_bundle(tiny_masked)
    bundle, tokenizer = read_prior_bundle(workdir)
    write_prior_bundle(
        tmp_path / "model",
        params=bundle.params,
        model=bundle.model["prior"] | {"depth": 3},
        tokens=bundle.model["tokens"],
        protocol=bundle.protocol,
        tokenizer=tokenizer,
    )
    with pytest.raises(UserError, match="weights do not fit the model"):
        movq_jax.load(tmp_path)
