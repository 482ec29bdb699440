import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.inception_score import InceptionScore

CLASSES = 12


def draw(count, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((count, CLASSES)).astype(np.float32)


def score(made, logits, batch=7):
    for start in range(0, len(logits), batch):
        made.update(logits[start : start + batch])
    return made.compute()


def by_definition(blocks):
    """From the logits of each block, with all probabilities at hand."""
    scores = []
    for logits in blocks:
        p = np.exp(np.float64(logits))
        p /= p.sum(axis=1, keepdims=True)
        divergences = np.sum(p * np.log(p / p.mean(axis=0)), axis=1)
        scores.append(np.exp(divergences.mean()))
    return np.mean(scores), np.std(scores)


def test_consecutive_blocks_of_which_the_last_is_smaller():
    logits = draw(50)
    expected = by_definition([logits[:20], logits[20:40], logits[40:]])
    made = score(InceptionScore.adm(block=20), logits)
    assert made == pytest.approx(expected, rel=1e-12)
    assert all(isinstance(number, float) for number in made)


def test_blocks_of_a_permutation():
    logits = draw(53)
    mixed = logits[np.random.RandomState(7).permutation(53)]
    blocks = [mixed[i * 53 // 4 : (i + 1) * 53 // 4] for i in range(4)]
    made = score(InceptionScore.torch_fidelity(53, splits=4, seed=7), logits)
    assert made == pytest.approx(by_definition(blocks), rel=1e-12)


def test_one_block():
    logits = draw(31)
    mean, deviation = score(InceptionScore.one_block(), logits)
    assert mean == pytest.approx(by_definition([logits])[0], rel=1e-12)
    assert deviation == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: InceptionScore.adm(block=8),
        lambda: InceptionScore.torch_fidelity(40, splits=3),
        InceptionScore.one_block,
    ],
)
def test_the_batches_do_not_matter(make):
    logits = draw(40)
    whole = score(make(), logits, batch=40)
    for batch in (1, 6, 8):
        assert score(make(), logits, batch) == pytest.approx(whole, rel=1e-12)


def test_extremes_of_the_scale():
    """From 1, where all images look the same, to the number of classes."""
    grey = score(InceptionScore.one_block(), np.zeros((9, CLASSES)))
    assert grey == pytest.approx((1, 0), abs=1e-12)
    sure = np.tile(1e4 * np.eye(CLASSES), (3, 1))  # all other p are 0 in float64
    assert score(InceptionScore.one_block(), sure)[0] == pytest.approx(CLASSES)
    same = np.repeat(sure[:1], 5, axis=0)
    assert score(InceptionScore.one_block(), same)[0] == pytest.approx(1)
    # Logits are known but for a constant of each image.
    logits = draw(10)
    shifted = np.float64(logits) + np.linspace(-1e5, 1e5, 10)[:, None]
    expected = score(InceptionScore.one_block(), logits)[0]
    assert score(InceptionScore.one_block(), shifted)[0] == pytest.approx(expected)


def test_images_sorted_by_class_score_1_in_blocks():
    """Why ADM's samples are shuffled: a block of one class has nothing to tell."""
    sure = np.repeat(50 * np.eye(CLASSES), 5, axis=0)
    assert score(InceptionScore.adm(block=5), sure)[0] == pytest.approx(1)
    mixed = score(InceptionScore.torch_fidelity(60, splits=2), sure)[0]
    assert mixed > 0.8 * CLASSES


def test_what_cannot_be_scored():
    made = InceptionScore.adm()
    with pytest.raises(UserError, match="no Inception Score of 0 images"):
        made.compute()
    made.update(np.zeros((0, CLASSES)))
    made.update(draw(3))
    with pytest.raises(UserError, match="of 12 classes so far, and are of 5 now"):
        made.update(np.zeros((2, 5)))
    bad = draw(3, seed=1)
    bad[1, 2] = np.nan
    with pytest.raises(UserError, match="the logits of 1 of 3 images are not finite"):
        made.update(bad)
    assert made.count == 3
    assert made.compute() == pytest.approx(by_definition([draw(3)]), rel=1e-12)
    with pytest.raises(UserError, match="block is 0 images; it must be at least 1"):
        InceptionScore.adm(block=0)


def test_a_number_of_images_that_is_not_as_announced():
    with pytest.raises(UserError, match="9 images cannot be parted into 10 splits"):
        InceptionScore.torch_fidelity(9)
    made = InceptionScore.torch_fidelity(20, splits=2)
    made.update(draw(19))
    with pytest.raises(UserError, match="20 images were announced .* got 19: .* true"):
        made.compute()
    with pytest.raises(UserError, match="20 images were announced .* at least 21"):
        made.update(draw(2))
    made.update(draw(1))
    assert made.compute()[0] > 1


@pytest.mark.parity
@pytest.mark.parametrize("splits", [1, 10])
def test_equals_torch_fidelity(torch, splits):
    theirs = pytest.importorskip("torch_fidelity.metric_isc")
    logits = draw(137, seed=3)
    expected = theirs.isc_features_to_metric(torch.from_numpy(logits), splits)
    made = score(InceptionScore.torch_fidelity(137, splits), logits)
    assert made[0] == pytest.approx(expected[theirs.KEY_METRIC_ISC_MEAN], rel=1e-10)
    assert made[1] == pytest.approx(expected[theirs.KEY_METRIC_ISC_STD], abs=1e-10)
