import importlib.util
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.builders import huggingface
from movq_jax.data.builders.listing import NO_LABEL, file_size
from movq_jax.data.preparing.writing import write_dataset
from movq_jax.errors import UserError


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The package, with a cache of its own."""
    package = pytest.importorskip("datasets", reason="needs the extra `huggingface`")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    package.disable_progress_bars()
    return package


def encoded(number, format="JPEG"):
    image = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def table(datasets, numbers, *, paths=True, **columns):
    """Return a dataset of encoded images; `columns` are (kind, values)."""
    images = [
        {"bytes": encoded(n), "path": f"{n}.jpg" if paths else None} for n in numbers
    ]
    features = {"image": datasets.Image()}
    features |= {name: kind for name, (kind, _) in columns.items()}
    values = {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(
        {"image": images, **values}, features=datasets.Features(features)
    )


def contents(listing):
    return {
        split: {e.key: (e.path.read_bytes(), e.label) for e in examples}
        for split, examples in listing.splits.items()
    }


@pytest.fixture
def saved(datasets, tmp_path):
    """A folder that `save_to_disk` wrote, with the splits train and val."""
    kind = datasets.ClassLabel(names=["hat", "shoe"])
    splits = {
        "train": table(datasets, range(5), label=(kind, [0, 1, 0, 1, None])),
        "val": table(datasets, [7, 8], label=(kind, [1, -1])),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_folder_that_was_saved(saved):
    listing = huggingface.find(str(saved))
    assert listing.classes == ["hat", "shoe"]
    labels = [0, 1, 0, 1, NO_LABEL]
    assert contents(listing) == {
        "train": {f"0000000{n}_{n}.jpg": (encoded(n), labels[n]) for n in range(5)},
        "validation": {
            "00000000_7.jpg": (encoded(7), 1),
            "00000001_8.jpg": (encoded(8), NO_LABEL),
        },
    }
    for example in listing.splits["train"]:
        assert file_size(example.path) == len(example.path.read_bytes())
    assert str(listing.splits["train"][3].path) == f"row 3 of {saved} train (3.jpg)"
    assert listing.fingerprint() == huggingface.find(str(saved)).fingerprint()


def test_rows_in_other_processes(saved):
    listing = huggingface.find(str(saved))
    pickled = pickle.dumps(listing)
    assert len(pickled) < 20_000  # the paths of the tables, and no images
    assert contents(pickle.loads(pickled)) == contents(listing)


def test_prepared_in_processes(saved, tmp_path, read_records):
    listing = huggingface.find(str(saved))
    for jobs in (1, 2):
        data_dir = tmp_path / f"data{jobs}"
        prepared = write_dataset(listing, name="set", data_dir=data_dir, jobs=jobs)
        assert prepared.images == {"train": 5, "validation": 2}
        records = read_records(data_dir, "set", "validation")
        assert records["00000000_7.jpg"]["image"] == encoded(7)
        assert records["00000000_7.jpg"]["label"] == 1


def test_one_table_without_a_validation_set(datasets, tmp_path):
    table(datasets, range(20), paths=False).save_to_disk(str(tmp_path / "one"))
    splits = huggingface.find(str(tmp_path / "one"), 0.3).splits
    keys = {split: [e.key for e in examples] for split, examples in splits.items()}
    assert sorted(keys["train"] + keys["validation"]) == [
        f"{number:08d}" for number in range(20)
    ]
    assert 0 < len(keys["validation"]) < 14
    assert list(huggingface.find(str(tmp_path / "one"), 0.0).splits) == ["train"]


def test_parquet(datasets, tmp_path):
    kind = datasets.ClassLabel(names=["hat", "shoe"])
    whole = table(datasets, range(6), label=(kind, [0, 1] * 3))
    folder = tmp_path / "tables"
    folder.mkdir()
    whole.select(range(4)).to_parquet(str(folder / "train-0.parquet"))
    whole.select(range(4, 6)).to_parquet(str(folder / "test-0.parquet"))
    listing = huggingface.find(str(folder), 0.0)
    assert {s: len(e) for s, e in listing.splits.items()} == {"train": 4, "test": 2}
    assert listing.classes == ["hat", "shoe"]
    one = huggingface.find(str(folder / "train-0.parquet"), 0.0)
    pattern = huggingface.find(f"{folder}/tr*.parquet", 0.0)
    expected = {f"0000000{n}_{n}.jpg": (encoded(n), n % 2) for n in range(4)}
    for found in (listing, one, pattern):
        assert contents(found)["train"] == expected


def test_a_folder_of_images(datasets, tmp_path):
    for number in range(6):
        split, name = ("train", "test")[number // 4], ("hat", "shoe")[number % 2]
        path = tmp_path / "images" / split / name / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number))
    listing = huggingface.find(str(tmp_path / "images"), 0.0)
    assert listing.classes == ["hat", "shoe"]
    found = {
        data: (split, label)
        for split, images in contents(listing).items()
        for data, label in images.values()
    }
    assert found == {encoded(n): (("train", "test")[n // 4], n % 2) for n in range(6)}
    sizes = {file_size(e.path) for e in listing.splits["train"]}
    assert sizes == {len(encoded(n)) for n in range(4)}
    (tmp_path / "images" / "train" / "hat" / "0.jpg").unlink()
    gone = next(e for e in listing.splits["train"] if e.key.endswith("_0.jpg"))
    with pytest.raises(OSError, match="No such file"):
        gone.path.read_bytes()


def test_the_column_of_images(datasets, tmp_path):
    two = (
        table(datasets, [0])
        .add_column("mask", [None])
        .cast_column("mask", datasets.Image())
    )
    two.save_to_disk(str(tmp_path / "two"))
    assert len(huggingface.find(str(tmp_path / "two")).splits["train"]) == 1
    two.rename_column("image", "photo").save_to_disk(str(tmp_path / "which"))
    with pytest.raises(UserError, match="several columns of images: photo, mask"):
        huggingface.find(str(tmp_path / "which"))
    two.remove_columns(["image"]).rename_column("mask", "picture").save_to_disk(
        str(tmp_path / "none")
    )
    (example,) = huggingface.find(str(tmp_path / "none")).splits["train"]
    with pytest.raises(OSError, match="the row has no image"):
        example.path.read_bytes()


def test_no_images_and_no_classes(datasets, tmp_path):
    words = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    words.save_to_disk(str(tmp_path / "words"))
    with pytest.raises(UserError, match="no column of images, only text, label"):
        huggingface.find(str(tmp_path / "words"))
    numbers = datasets.Dataset.from_dict({"image": [1, 2]})
    numbers.save_to_disk(str(tmp_path / "numbers"))
    with pytest.raises(UserError, match="'image' does not hold encoded images"):
        huggingface.find(str(tmp_path / "numbers"))
    table(datasets, [0, 1]).save_to_disk(str(tmp_path / "plain"))
    listing = huggingface.find(str(tmp_path / "plain"))
    assert listing.classes == [] and "no column of type ClassLabel" in listing.notes[0]


def test_images_that_no_program_said_to_be_some(datasets, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": encoded(n), "path": f"{n}.jpg"} for n in range(2)]
    pq.write_table(pa.table({"image": images}), tmp_path / "bare.parquet")
    listing = huggingface.find(str(tmp_path / "bare.parquet"), 0.0)
    assert contents(listing)["train"]["00000001_1.jpg"] == (encoded(1), NO_LABEL)


def test_from_the_hub(datasets, monkeypatch):
    asked = []

    def load_dataset(name, config):
        asked.append((name, config))
        return datasets.DatasetDict({"train": table(datasets, [0, 1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    huggingface.find("someone/pictures")
    huggingface.find("someone/pictures:large")
    assert asked == [("someone/pictures", None), ("someone/pictures", "large")]


def test_what_cannot_be_loaded(datasets, monkeypatch, tmp_path):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"cannot be loaded .*: no network$"):
        huggingface.find("someone/pictures")
    with pytest.raises(UserError, match="does not exist, and cannot be the name"):
        huggingface.find(str(tmp_path / "missing"))


def test_a_folder_without_data(datasets, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be loaded by the package datasets"):
        huggingface.find(str(tmp_path / "empty"))


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'movq_jax\[huggingface\]'"):
        huggingface.find("someone/pictures")


def test_fraction_that_makes_no_sense():
    with pytest.raises(UserError, match="validation fraction is 1"):
        huggingface.find("someone/pictures", 1.0)
