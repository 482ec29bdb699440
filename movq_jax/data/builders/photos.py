"""`photos`: eight photographs inside ordinary wheels, no download.

scikit-image and scikit-learn install them as sample data:

=========  ===========  ========================================================
astronaut  512 x 512    NASA; public domain
hubble     1000 x 872   NASA and ESA; public domain
retina     1411 x 1411  Mikael Haggstrom; CC0
rocket     640 x 427    SpaceX; public domain
china      640 x 427    danielbuechele, flickr.com; CC BY 2.0
flower     640 x 427    vultilion, flickr.com; CC BY 2.0
chelsea    451 x 300    Stefan van der Walt; CC0
coffee     600 x 400    Rachel Michetti; CC0
=========  ===========  ========================================================

The cat and the coffee are for validation; the two sets share no photograph.
"""

import importlib.util
from pathlib import Path

from movq_jax.data.builders.listing import Example, Listing
from movq_jax.errors import UserError

_SPLITS = {
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/retina.jpg",
        "skimage/data/rocket.jpg",
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
    "validation": ("skimage/data/chelsea.png", "skimage/data/coffee.png"),
}
_DESCRIPTION = (
    "Photographs that scikit-image (CC0 or public domain) and scikit-learn (china.jpg "
    "by danielbuechele, flower.jpg by vultilion: CC BY 2.0) install as sample data."
)


def find() -> Listing:
    """Locate the photographs in the installed packages.

    Raises:
        UserError: a package is not installed, or lacks a photograph.
    """
    return Listing(
        description=_DESCRIPTION,
        splits={
            split: [Example(_locate(name), Path(name).name) for name in names]
            for split, names in _SPLITS.items()
        },
    )


def _locate(name: str) -> Path:
    package, _, inside = name.partition("/")
    # Found, not imported: both packages take seconds to import.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the photographs need the package {package}: "
            f"pip install 'movq_jax[photos]'"
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_file():
        raise UserError(
            f"the installed package {package} has no {inside}: "
            f"pip install --force-reinstall 'movq_jax[photos]'"
        )
    return path
