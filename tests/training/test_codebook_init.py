import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.training.codebook_init import kmeans


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
