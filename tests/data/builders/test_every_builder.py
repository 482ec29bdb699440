"""Each builder on a miniature of its official layout, and the configs that use it."""

import importlib.util
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.data.builders import BUILDERS, celebahq, ffhq
from movq_jax.data.pipeline import eval_batches, train_batches
from movq_jax.data.preparing.writing import find_prepared, write_dataset
from movq_jax.training import loop

ROOT = Path(__file__).parents[3]


def photos(make):
    for package in ("skimage", "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package}, which has the photographs, is not installed")
    return {}


def folder(make):
    places = ["train/hat", "train/shirt", "val/hat", "val/shirt"]
    names = [f"{place}/{n}.jpg" for place in places for n in (1, 2)]
    return make.source({name: make.clothes.jpeg(n) for n, name in enumerate(names)})


def huggingface(make):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image()})
    images = [{"bytes": make.clothes.jpeg(n), "path": None} for n in range(4)]
    table = datasets.Dataset.from_dict({"image": images}, features=features)
    table.save_to_disk(make.root)
    return {"source": str(make.root)}


def imagenet(make):
    classes = {
        f"{name}.tar": make.pack.tar(
            {f"{name}_{n}.JPEG": make.clothes.jpeg(10 * place + n) for n in range(3)}
        )
        for place, name in enumerate(["n01440764", "n01443537"])
    }
    images = {f"ILSVRC2012_val_{n:08d}.JPEG": make.clothes.jpeg(n) for n in (1, 2, 3)}
    return make.source(
        {
            "ILSVRC2012_img_train.tar": make.pack.tar(classes),
            "ILSVRC2012_img_val.tar": make.pack.tar(images),
        }
    )


def ffhq_images(make):
    names = [f"{n // 1000 * 1000:05d}/{n:05d}.png" for n in (0, 1, 2, 3, 69_999)]
    images = {f"images1024x1024/{n}": make.faces.png(i) for i, n in enumerate(names)}
    return make.source({"images1024x1024.zip": make.pack.zip(images)})


def ffhq_taming(make):
    split_list = make.publish(ffhq, "FFHQ_TAMING", [1, 2])
    return ffhq_images(make) | {"split_list": split_list}


def ade20k_full(make):
    place = "ADE20K_2021_17_01/images/ADE"
    files = {
        f"{place}/training/urban/street/ADE_train_{n:08d}.jpg": make.scenes.jpeg(n)
        for n in (1, 2, 3)
    }
    files |= {n.replace(".jpg", "_seg.png"): b"a map" for n in files}
    name = f"{place}/validation/cultural/library/ADE_val_00000001.jpg"
    return make.source(files | {name: make.scenes.jpeg(4)})


def ade20k_challenge(make):
    files = {
        f"ADEChallengeData2016/images/{folder}/ADE_{part}_{n:08d}.jpg": (
            make.scenes.jpeg(n)
        )
        for folder, part, n in (
            ("training", "train", 1),
            ("training", "train", 2),
            ("validation", "val", 3),
        )
    }
    files["ADEChallengeData2016/sceneCategories.txt"] = b"ADE_val_00000003 alley\n"
    return make.source({"ADEChallengeData2016.zip": make.pack.zip(files)})


def coco(make, year):
    files = {}
    for part, numbers in ((f"train{year}", (1, 2, 3)), (f"val{year}", (4, 5))):
        prefix = f"COCO_{part}_" if year == "2014" else ""
        names = {n: f"{prefix}{n:012d}.jpg" for n in numbers}
        files |= {f"{part}/{name}": make.coco.jpeg(n) for n, name in names.items()}
        content = {
            "images": [{"id": n, "file_name": name} for n, name in names.items()],
            "annotations": [{"image_id": n, "caption": "a"} for n in numbers],
        }
        text = json.dumps(content).encode()
        files[f"annotations/captions_{part}.json"] = text
    return make.source(files)


def celebahq_images(make):
    originals = {0: 119_613, 1: 7, 2: 162_771, 3: 182_638}
    lines = [f"{n} {o} {o + 1:06d}.jpg\n" for n, o in originals.items()]
    files = {f"CelebA-HQ-img/{n}.jpg": make.faces.jpeg(n) for n in originals}
    files["CelebA-HQ-to-CelebA-mapping.txt"] = (
        "idx orig_idx orig_file\n" + "".join(lines)
    ).encode()
    files = {f"CelebAMask-HQ/{name}": data for name, data in files.items()}
    return make.source({"CelebAMask-HQ.zip": make.pack.zip(files)})


def celebahq_taming(make):
    split_list = make.publish(celebahq, "CELEBAHQ_TAMING", [2])
    return celebahq_images(make) | {"split_list": split_list}


def celebahq_folders(make):
    names = ["train/1.jpg", "train/2.jpg", "val/3.jpg", "test/4.jpg"]
    return make.source({name: make.faces.jpeg(n) for n, name in enumerate(names)})


MINIATURES = {
    "photos": photos,
    "folder": folder,
    "huggingface": huggingface,
    "imagenet": imagenet,
    "ffhq": ffhq_taming,
    "ffhq/taming": ffhq_taming,
    "ffhq/nvidia": ffhq_images,
    "ffhq/all": ffhq_images,
    "ade20k": ade20k_full,
    "ade20k/full": ade20k_full,
    "ade20k/challenge": ade20k_challenge,
    "coco": lambda make: coco(make, "2017"),
    "coco/2014": lambda make: coco(make, "2014"),
    "coco/2017": lambda make: coco(make, "2017"),
    "celebahq": celebahq_taming,
    "celebahq/taming": celebahq_taming,
    "celebahq/celebamask": celebahq_images,
    "celebahq/folders": celebahq_folders,
}
# Config -> builder of its dataset.
CONFIGS = {
    "movq_ffhq": "ffhq",
    "vqgan_ffhq": "ffhq/taming",
    "movq_imagenet": "imagenet",
    "vqgan_imagenet": "imagenet",
    "dualvq_ade20k": "ade20k/full",
    "vqgan_ade20k": "ade20k/full",
    "dualvq_celebahq": "celebahq/taming",
    "vqgan_celebahq": "celebahq",
    "dualvq_coco": "coco/2014",
    "vqgan_coco": "coco/2014",
}


@pytest.fixture
def make(tmp_path, pack, publish, faces, clothes, scenes, coco_pictures):
    """What the functions above make a miniature of."""

    class Make:
        root = tmp_path / "source"

        def source(self, files):
            return {"source": str(pack.folder(self.root, files))}

    make = Make()
    make.pack, make.publish = pack, publish
    make.faces, make.clothes, make.scenes = faces, clothes, scenes
    make.coco = coco_pictures
    return make


def test_there_is_one_for_each_builder():
    assert MINIATURES.keys() == BUILDERS.keys()


@pytest.mark.parametrize("dataset", sorted(BUILDERS))
def test_prepared_and_read_back(dataset, make, tmp_path, read_records):
    flags = MINIATURES[dataset](make)
    assert flags.keys() <= inspect.signature(BUILDERS[dataset]).parameters.keys()
    listing = BUILDERS[dataset](**flags)
    name, _, edition = dataset.partition("/")
    assert not edition or listing.config == edition
    prepared = write_dataset(listing, name=name, data_dir=tmp_path / "data")
    assert not prepared.refused
    assert find_prepared(name, tmp_path / "data", listing) == prepared
    for split, examples in listing.splits.items():
        records = read_records(tmp_path / "data", dataset, split)
        assert {n: (r["image"], r["label"]) for n, r in records.items()} == {
            e.key: (e.path.read_bytes(), e.label) for e in examples
        }


@pytest.fixture
def tiny(make, tmp_path, monkeypatch):
    """A function: name of a config -> it as `:tiny`, on a miniature of its dataset."""
    monkeypatch.chdir(ROOT)

    def tiny(name):
        dataset = CONFIGS[name]
        listing = BUILDERS[dataset](**MINIATURES[dataset](make))
        kind = dataset.partition("/")[0]
        prepared = write_dataset(listing, name=kind, data_dir=tmp_path / "data")
        config = load_config(f"configs/{name}.py:tiny")
        # By the name that the full config has for it.
        config.data.dataset = load_config(f"configs/{name}.py").data.dataset
        config.data.data_dir = str(tmp_path / "data")
        return config, prepared

    return tiny


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gets_its_batches(name, tiny):
    config, prepared = tiny(name)
    size, side = config.train.batch_size, config.data.image_size
    with train_batches(config.data, seed=0, batch_size=size, start=0) as batches:
        image = next(batches)["image"]
    assert image.shape == (size, side, side, 3) and image.dtype == np.uint8
    assert all(picture.std() > 0 for picture in image)
    with eval_batches(config.data, batch_size=size) as batches:
        masks = [batch["mask"].sum() for batch in batches]
    assert sum(masks) == prepared.images["validation"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    "movq_ffhq,movq_imagenet,dualvq_ade20k,dualvq_celebahq,dualvq_coco".split(","),
)
def test_a_config_trains(name, tiny, tmp_path):
    config, _ = tiny(name)
    values = loop.train(config, tmp_path / "run")
    assert np.isfinite(list(values.values())).all()
