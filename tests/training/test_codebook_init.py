import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.training import tokenizer_task
from movq_jax.training.codebook_init import from_data, is_due, kmeans


def test_a_lloyd_step_by_hand():
    """Equal starts: the first of them gets all features, the other keeps its mean."""
    features = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    means = kmeans(jax.random.key(0), features, 2, iterations=3)
    np.testing.assert_array_equal(means, [[1.0, 0.0], [1.0, 0.0]])

    features = jnp.asarray([[0.0], [2.0], [10.0], [14.0]])
    found = np.sort(kmeans(jax.random.key(1), features, 2, iterations=10), axis=0)
    np.testing.assert_allclose(found, [[1.0], [12.0]])


def test_both_books_from_as_many_batches_as_it_takes(tiny_config, batch):
    config = tiny_config()
    with config.unlocked():
        books = {"codebook_size": (64, 32), "dim": (2, 6), "depth": 0}
        config.model.quantizer = {"name": "dual", **books}
        config.train.codebook_init = {"name": "kmeans", "features_per_code": 10}
    assert is_due(config, 0) and not is_due(config, 1)
    state = jax.jit(lambda: tokenizer_task.init_state(config))()
    taken = []

    def batches():
        while True:
            taken.append(1)
            yield batch

    rows = from_data(config, state.gen_params, batches(), step=0)
    assert {book: array.shape for book, array in rows.items()} == {
        "global_codebook": (64, 2),
        "local_codebook": (32, 6),
    }
    a_batch = 8 * (16 // build_tokenizer(config.model).factor) ** 2
    assert len(taken) == -(-640 // a_batch)
    for array in rows.values():
        assert len(np.unique(array, axis=0)) > 1


def test_kmeans_finds_well_separated_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    points = (centres[:, None] + 0.1 * rng.normal(size=(4, 50, 2))).reshape(-1, 2)
    means = None
    for seed in range(8):  # Lloyd's algorithm may start badly
        means = kmeans(jax.random.key(seed), jnp.float32(points), 4, iterations=10)
        distance = np.linalg.norm(centres[:, None] - means[None], axis=-1).min(axis=1)
        if np.all(distance < 0.1):
            break
    assert np.all(distance < 0.1)


def test_kmeans_with_fewer_features_than_codes():
    features = jnp.float32(np.random.default_rng(0).normal(size=(5, 3)))
    means = kmeans(jax.random.key(0), features, 8, iterations=3)
    assert means.shape == (8, 3) and np.all(np.isfinite(means))


def test_kmeans_of_equal_features():
    means = kmeans(jax.random.key(0), jnp.ones((20, 3)), 4, iterations=3)
    np.testing.assert_array_equal(means, np.ones((4, 3)))
