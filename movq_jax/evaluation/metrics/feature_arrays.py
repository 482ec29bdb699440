"""What a metric of feature vectors checks before it begins."""

import numpy as np

from movq_jax.errors import UserError


def check_features(features: np.ndarray, what: str) -> np.ndarray:
    """Returns features [N, D] of any real dtype as an array, once looked over.

    Args:
      features: one row an image.
      what: they are, for the message, such as 'real features'.

    Raises:
      UserError: it is not [N, D] of real numbers with D from 1, or one of the numbers
        is not finite.
    """
    features = np.asarray(features)
    if features.ndim != 2 or not features.shape[1] or features.dtype.kind not in "fiu":
        raise UserError(
            f"the {what} must be real numbers [N, D], not "
            f"{features.dtype} {list(features.shape)}"
        )
    bad = len(features) - int(np.isfinite(features).all(axis=1).sum())
    if bad:
        raise UserError(
            f"the {what} of {bad} of {len(features)} images are not finite; "
            "look for NaN in the images and in the network's weights"
        )
    return features


def check_two_sets(
    a: np.ndarray, b: np.ndarray, names: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as `check_features` returns them, once their widths are found equal.

    Args:
      a: [N, D].
      b: [M, D].
      names: of the two, for messages, such as 'real' and 'fake'.

    Raises:
      UserError: see `check_features`; or they are of two widths.
    """
    a, b = (
        check_features(x, f"{name} features")
        for x, name in zip((a, b), names, strict=True)
    )
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"the {names[0]} features have {a.shape[1]} numbers an image and the "
            f"{names[1]} ones {b.shape[1]}: they were made by two networks"
        )
    return a, b
