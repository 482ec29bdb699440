"""Builders: what of a user's disk makes up a dataset.

A builder is a function that returns a `Listing`; its parameters are the flags of
`movq prepare` that it takes. `writing` turns a listing into a prepared dataset.
`name/config` is an edition of `name`; `name` alone takes the one that it finds, or the
first.
"""

import functools

from movq_jax.data.builders import (
    ade20k,
    celebahq,
    coco,
    ffhq,
    folder,
    huggingface,
    imagenet,
    photos,
)

BUILDERS = {
    "photos": photos.find,
    "folder": folder.find,
    "huggingface": huggingface.find,
    "imagenet": imagenet.find,
    "ffhq": ffhq.find_taming,
    **{f"ffhq/{edition}": find for edition, find in ffhq.EDITIONS.items()},
    "celebahq": celebahq.find_taming,
    **{f"celebahq/{edition}": find for edition, find in celebahq.EDITIONS.items()},
    "ade20k": ade20k.find,
    **{
        f"ade20k/{edition}": functools.partial(ade20k.find, edition=edition)
        for edition in ade20k.EDITIONS
    },
    "coco": coco.find,
    **{
        f"coco/{edition}": functools.partial(coco.find, edition=edition)
        for edition in coco.EDITIONS
    },
}
