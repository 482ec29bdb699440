import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from movq_jax.errors import UserError
from movq_jax.training import augmentation, sharding
from movq_jax.training.augmentation import AUGMENTATIONS, make_augment

# Seldom a number repeats, and none is 0: where a pixel came from can be told.
X = np.random.default_rng(0).uniform(0.1, 1, (8, 16, 24, 3)).astype(np.float32)


def options(*policies, probability=1.0, cutout=0.2):
    return {"policies": policies, "probability": probability, "cutout": cutout}


def apply(options, seed=0, x=X):
    return apply_often(options, [seed], x)


def apply_often(options, seeds, x=X):
    """What becomes of x, for each of the seeds, one below the other."""
    augment = jax.jit(make_augment(options))
    return np.concatenate([augment(jax.random.key(seed), x) for seed in seeds])


def shifted(image, down, right):
    """The image moved by hand, zeros where nothing came from."""
    height, width, _ = image.shape
    padded = np.pad(image, ((height, height), (width, width), (0, 0)))
    return padded[height - down :, width - right :][:height, :width]


def test_translation_moves_whole_pixels_at_most_an_eighth_of_a_side():
    y = apply_often(options("translation"), range(8))
    found = set()
    for before, after in zip(np.concatenate([X] * 8), y, strict=True):
        moves = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-3, 4)
            if np.array_equal(shifted(before, down, right), after)
        ]
        assert len(moves) == 1
        found |= set(moves)
    assert {down for down, _ in found} == {-2, -1, 0, 1, 2}
    assert {right for _, right in found} == {-3, -2, -1, 0, 1, 2, 3}


def test_color_changes_brightness_then_saturation_then_contrast():
    key = jax.random.key(3)
    y = np.asarray(augmentation.color(key, jnp.asarray(X)))
    u = np.asarray(jax.random.uniform(key, (3, len(X))))
    assert len(np.unique(u)) == u.size
    for before, after, u1, u2, u3 in zip(X, y, *u, strict=True):
        z = before + u1 - 0.5
        z = (z - z.mean(-1, keepdims=True)) * 2 * u2 + z.mean(-1, keepdims=True)
        z = (z - z.mean()) * (u3 + 0.5) + z.mean()
        np.testing.assert_allclose(after, z, atol=1e-5)
    assert y.min() < 0 and y.max() > 1  # no clipping


@pytest.mark.parametrize(("side", "height", "width"), [(0.2, 3, 5), (0.5, 8, 12)])
def test_cutout_is_a_hole_around_any_pixel(side, height, width):
    y = apply_often(options("cutout", cutout=side), range(20))
    x = np.concatenate([X] * 20)
    rows, columns = [], []
    for before, after in zip(x, y, strict=True):
        hole = np.all(after == 0, axis=-1)
        np.testing.assert_array_equal(after, np.where(hole[..., None], 0, before))
        across, down = hole.any(0), hole.any(1)
        np.testing.assert_array_equal(hole, np.outer(down, across))
        rows.append(tuple(np.flatnonzero(down)))
        columns.append(tuple(np.flatnonzero(across)))
    # Whole in the middle, half of it at either border, and nowhere a hole in the hole.
    for runs, length, size in ((rows, height, 16), (columns, width, 24)):
        assert {run[-1] - run[0] + 1 - len(run) for run in runs} == {0}
        assert max(len(run) for run in runs) == length
        half = (length + 1) // 2
        assert min(len(run) for run in runs if run[0] == 0) == half
        assert min(len(run) for run in runs if run[-1] == size - 1) == half


def test_without_policies_nothing_changes():
    np.testing.assert_array_equal(apply(options()), X)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_is_applied_to_the_whole_batch_or_not_at_all(name):
    never = apply(options(name, probability=0.0))
    np.testing.assert_array_equal(never, X)
    always = make_augment(options(name))
    sometimes = jax.jit(make_augment(options(name, probability=0.5)))
    count = 0
    for seed in range(30):
        key = jax.random.key(seed)
        y = np.asarray(sometimes(key, X))
        if not np.array_equal(y, X):
            count += 1
            last = key, y
    assert 5 < count < 25
    np.testing.assert_allclose(jax.jit(always)(last[0], X), last[1], atol=1e-6)


def test_draws_are_of_the_key_and_the_image_and_the_name():
    chosen = options("color", "translation", "cutout")
    y = apply(chosen)
    np.testing.assert_array_equal(y, apply(chosen))
    assert not np.array_equal(y, apply(chosen, seed=1))
    same = np.repeat(X[:1], 8, axis=0)
    for name in AUGMENTATIONS:
        assert len(np.unique(apply(options(name), x=same), axis=0)) > 1
    # What else is chosen has no influence on where the hole is.
    alone, second = apply(options("cutout")), apply(options("color", "cutout"))
    np.testing.assert_array_equal(alone == 0, second == 0)


def test_the_order_is_the_configs():
    # Color before cutout leaves the hole 0, after it the hole has a color.
    assert (apply(options("color", "cutout")) == 0).all(-1).any()
    assert not (apply(options("cutout", "color")) == 0).any()


def test_gradients_reach_exactly_what_is_seen():
    augment = make_augment(options("translation", "cutout"))
    key = jax.random.key(0)
    weights = jnp.asarray(X[::-1])

    @jax.jit
    @jax.grad
    def gradient(x):
        return jnp.vdot(weights, augment(key, x))

    # Linear in x: <weights, A x> = <A' weights, x>, and zero where A drops a pixel.
    g = np.asarray(gradient(jnp.asarray(X)))
    y = np.asarray(jax.jit(augment)(key, X))
    np.testing.assert_allclose(np.vdot(g, X), np.vdot(weights, y), rtol=1e-5)
    for image, got, sent in zip(X, y, g, strict=True):
        np.testing.assert_array_equal(np.isin(image, got), sent != 0)


def test_colors_gradient_is_that_of_finite_differences():
    augment = make_augment(options("color"))
    key, x = jax.random.key(0), jnp.asarray(X[:, :4, :4])
    direction = x[::-1]

    @jax.jit
    def f(x):
        return jnp.sum(jnp.square(augment(key, x)))

    step = 1e-2  # of a quadratic function the central difference is exact
    expected = (f(x + step * direction) - f(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(jax.grad(f)(x), direction), expected, rtol=1e-3)


def test_it_is_the_same_on_one_device_and_on_eight():
    augment = jax.jit(make_augment(options("translation", "color", "cutout")))
    on_devices = jax.device_put(X, sharding.batch_sharding(sharding.make_mesh()))
    key = jax.random.key(5)
    one, eight = augment(key, X), augment(key, on_devices)
    np.testing.assert_array_equal(one == 0, eight == 0)
    np.testing.assert_allclose(one, eight, atol=1e-6)


def test_a_config_is_taken_as_it_is():
    augment = make_augment(ConfigDict(options("translation", "cutout")))
    y = jax.jit(augment)(jax.random.key(0), X)
    np.testing.assert_array_equal(y, apply(options("translation", "cutout")))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (options("colour"), r"augment\.policies has 'colour'; did you mean 'color'"),
        (options("flip"), "Known: color, cutout, translation"),
        (options("color", "color"), "augment.policies is .*; give each name once"),
        (options() | {"policies": "color"}, r"\('color',\)"),
        (options(probability=1.5), "augment.probability is 1.5; it lies in 0..1"),
        (options(probability=float("nan")), "augment.probability is nan"),
        (options(cutout=-0.1), "config.loss.adversarial.augment.cutout is -0.1"),
        (options() | {"cutoff": 1.0}, "no field 'cutoff'; did you mean 'cutout'"),
    ],
)
def test_a_wrong_field_is_named(wrong, words):
    with pytest.raises(UserError, match=words):
        make_augment(wrong)
