"""The Inception Score: how sure a classifier is of each image, and how it varies.

    exp( mean over images of KL( p(class | image) || mean of p ) )

(Salimans et al., arXiv 1606.03498, section 4), over a block of images; the score of a
set is the mean over its blocks. Public programs part a set into blocks in different
ways, and numbers of different ways cannot be compared: small blocks score less.

    score = InceptionScore.adm()
    for images in batches:
        score.update(features(images).logits_unbiased)
    mean, std = score.compute()

What is kept of a block is the mean of p and that of sum p log p, because

    mean KL(p || q) = mean sum p log p - sum q log q,   q = mean p:

the probabilities of the images need not be kept, nor known all at once.
"""

from collections.abc import Callable

import numpy as np

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.feature_arrays import check_features


class InceptionScore:
    """Takes in logits in batches of any size and gives the score of them all.

    Made by one of its three class methods, each a way to part a set into blocks. The
    logits are those without the bias of the last layer: published scores are of them.

    Attributes:
      count: N, how many images there were so far.
    """

    def __init__(
        self, blocks: Callable[[np.ndarray], np.ndarray], expected: int | None = None
    ) -> None:
        """A score of no images yet.

        Args:
          blocks: from positions in the set, int [B], to the blocks they belong to,
            int [B], which are numbered from 0.
          expected: how many images there will be, if that has to be known.
        """
        self.count = 0
        self._blocks = blocks
        self._expected = expected
        self._members: list[int] = []
        self._sums: list[np.ndarray] = []  # of p, [C]
        self._negentropies: list[float] = []  # sums of sum p log p

    @classmethod
    def adm(cls, block: int = 5000) -> "InceptionScore":
        """Consecutive blocks as they come, as in ADM (arXiv 2105.05233).

        The last block may be smaller, and counts as much as any other. As the order
        tells which images share a block, sets that are sorted by class are to be
        shuffled before.

        Raises:
          UserError: `block` is below 1.
        """
        if block < 1:
            raise UserError(f"block is {block} images; it must be at least 1")
        return cls(lambda positions: positions // block)

    @classmethod
    def torch_fidelity(
        cls, num_images: int, splits: int = 10, seed: int = 2020
    ) -> "InceptionScore":
        """Blocks of a random permutation of all images, as torch-fidelity has them.

        The permutation is that of NumPy's `RandomState(seed)`, block i what comes at
        i * N // splits and after it, up to (i + 1) * N // splits. So N must be known,
        but no image waits for the others.

        Raises:
          UserError: `splits` is below 1, or there are fewer images than that.
        """
        if not 1 <= splits <= num_images:
            raise UserError(
                f"{num_images} images cannot be parted into {splits} splits, as the "
                "Inception Score of protocol torch_fidelity has to: give more images"
            )
        order = np.random.RandomState(seed).permutation(num_images)
        block_of = np.empty(num_images, np.int64)
        for i in range(splits):
            start, end = (j * num_images // splits for j in (i, i + 1))
            block_of[order[start:end]] = i
        return cls(lambda positions: block_of[positions], num_images)

    @classmethod
    def one_block(cls) -> "InceptionScore":
        """All images in one block; the deviation is 0 then."""
        return cls(np.zeros_like)

    def update(self, logits_unbiased: np.ndarray) -> None:
        """Takes in logits [B, C] of the next B images; B may be 0.

        Raises:
          UserError: another shape than before, numbers that are not finite, or more
            images than were announced. Nothing of the batch is taken in then.
        """
        logits = check_features(logits_unbiased, "logits").astype(float)
        if self._sums and logits.shape[1] != len(self._sums[0]):
            raise UserError(
                f"the logits were of {len(self._sums[0])} classes so far, and are of "
                f"{logits.shape[1]} now"
            )
        total = self.count + len(logits)
        if self._expected is not None and total > self._expected:
            raise UserError(self._miscounted(f"at least {total}"))
        log_p = logits - logits.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        negentropy = np.sum(p * log_p, axis=1)
        blocks = self._blocks(np.arange(self.count, total))
        for block in np.unique(blocks):
            self._add(int(block), p[blocks == block], negentropy[blocks == block])
        self.count = total

    def compute(self) -> tuple[float, float]:
        """The mean of the blocks' scores, and their standard deviation (over N).

        Raises:
          UserError: there were no images, or fewer than announced.
        """
        if not self.count:
            raise UserError("there is no Inception Score of 0 images: give at least 1")
        if self._expected is not None and self.count != self._expected:
            raise UserError(self._miscounted(str(self.count)))
        scores = []
        sums = zip(self._members, self._sums, self._negentropies, strict=True)
        for members, sum_p, negentropy in sums:
            q = sum_p / members
            log_q = np.log(q, out=np.zeros_like(q), where=q > 0)
            divergence = negentropy / members - np.sum(q * log_q)
            scores.append(np.exp(max(divergence, 0.0)))  # below 0 by rounding alone
        return float(np.mean(scores)), float(np.std(scores))

    def _add(self, block: int, p: np.ndarray, negentropy: np.ndarray) -> None:
        """Takes in members of a block by their p [n, C] and sum p log p [n]."""
        while len(self._members) <= block:
            self._members.append(0)
            self._sums.append(np.zeros(p.shape[1]))
            self._negentropies.append(0.0)
        self._members[block] += len(p)
        self._sums[block] += p.sum(axis=0)
        self._negentropies[block] += float(negentropy.sum())

    def _miscounted(self, count: str) -> str:
        return (
            f"{self._expected} images were announced to the Inception Score, and it "
            f"got {count}: their blocks would be others; say the true number"
        )
