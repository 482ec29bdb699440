"""Token caches: the indices of a dataset's images, to train a prior on."""
