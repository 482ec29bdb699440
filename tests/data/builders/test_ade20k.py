import pytest

from movq_jax.data.builders import BUILDERS, ade20k
from movq_jax.data.images import ImageError
from movq_jax.data.preparing.writing import find_prepared, write_dataset
from movq_jax.errors import UserError

FULL, CHALLENGE = "ADE20K_2021_17_01", "ADEChallengeData2016"
# Number of a training image -> its scene.
SCENES = {1: "cultural/airport_terminal", 2: "urban/street", 3: "urban/street"}
EXPECTED = {
    "full": "a part of ADE20K full: train has 3 of 25,574 images, validation has 2 of "
    "2,000 images",
    "challenge": "a part of ADE20K challenge: train has 3 of 20,210 images, validation "
    "has 2 of 2,000 images",
}


def full_files(scenes):
    """Return the files of the full release, as they lie below its folder."""
    files = {"index_ade20k.pkl": b"cposix\nsystem\n(S'false'\ntR."}
    for number, scene in SCENES.items():
        stem = f"images/ADE/training/{scene}/ADE_train_{number:08d}"
        files[f"{stem}.jpg"] = scenes.jpeg(number)
        files[f"{stem}.json"] = b"{}"
        files[f"{stem}_seg.png"] = files[f"{stem}_parts_1.png"] = b"a map"
        files[f"{stem}/instance_000_ADE_train_{number:08d}.png"] = b"a map"
    for number in (1, 2):
        stem = f"images/ADE/validation/urban/alley/ADE_val_{number:08d}"
        files[f"{stem}.jpg"] = scenes.jpeg(10 + number)
        files[f"{stem}_seg.png"] = b"a map"
    return files


def challenge_files(scenes):
    """Return the files of the challenge, as they lie below its folder."""
    names = {f"ADE_train_{n:08d}": ("training", n) for n in SCENES} | {
        f"ADE_val_{n:08d}": ("validation", n + 10) for n in (1, 2)
    }
    files = {"objectInfo150.txt": b"", "sceneCategories.txt": b""}
    for name, (folder, number) in names.items():
        files[f"images/{folder}/{name}.jpg"] = scenes.jpeg(number)
        files[f"annotations/{folder}/{name}.png"] = b"a map"
        scene = SCENES.get(number, "urban/alley").partition("/")[2]
        files["sceneCategories.txt"] += f"{name} {scene}\n".encode()
    return files


@pytest.fixture(scope="module")
def releases(scenes):
    """Edition -> (its folder, the files below that)."""
    return {
        "full": (FULL, full_files(scenes)),
        "challenge": (CHALLENGE, challenge_files(scenes)),
    }


def below(folder, files):
    return {f"{folder}/{name}": data for name, data in files.items()}


@pytest.fixture(params=["full", "challenge"])
def edition(request):
    return request.param


@pytest.fixture
def source(pack, releases, edition, tmp_path):
    """Five images of an edition in its official layout."""
    return pack.folder(tmp_path / "source", below(*releases[edition]))


def test_both_editions(source, edition, tmp_path, read_records):
    listing = ade20k.find(str(source))
    assert listing.config == edition and listing.notes == [EXPECTED[edition]]
    named = BUILDERS[f"ade20k/{edition}"](str(source))
    assert named.fingerprint() == listing.fingerprint()
    assert listing.ignored == 0
    prepared = write_dataset(listing, name="ade20k", data_dir=tmp_path / "data")
    assert prepared.folder == tmp_path / "data" / "ade20k" / edition / "1.0.0"
    assert prepared.images == {"train": 3, "validation": 2}
    for split in ("train", "validation"):
        stored = read_records(tmp_path / "data", "ade20k", split)
        assert {name: record["image"] for name, record in stored.items()} == {
            e.key: e.path.read_bytes() for e in listing.splits[split]
        }
        names = {n.rpartition("/")[2]: r["label"] for n, r in stored.items()}
        for name, label in names.items():
            scene = SCENES[int(name[-5])] if split == "train" else "urban/alley"
            if edition == "challenge":
                scene = scene.partition("/")[2]
            assert listing.classes[label] == scene


def layouts(pack, folder, files):
    yield "unpacked", below(folder, files)
    yield "itself", files
    yield "zip", {f"{folder}.zip": pack.zip(below(folder, files))}


def test_every_layout_is_the_same_dataset(pack, releases, edition, tmp_path):
    listings = [
        ade20k.find(str(pack.folder(tmp_path / name, files)))
        for name, files in layouts(pack, *releases[edition])
    ]
    assert len({listing.fingerprint() for listing in listings}) == 1
    prepared = write_dataset(listings[0], name="ade20k", data_dir=tmp_path / "data")
    assert find_prepared("ade20k", tmp_path / "data", listings[-1]) == prepared
    again = write_dataset(listings[-1], name="ade20k", data_dir=tmp_path / "again")
    assert again.bytes == prepared.bytes


def test_the_whole_is_not_noted(source, edition, monkeypatch):
    monkeypatch.setitem(ade20k.EDITIONS[edition].official, "train", 3)
    monkeypatch.setitem(ade20k.EDITIONS[edition].official, "validation", 2)
    assert ade20k.find(str(source)).notes == []


def test_both_in_one_folder(pack, releases, tmp_path):
    files = below(*releases["full"])
    folder, content = releases["challenge"]
    files[f"{folder}.zip"] = pack.zip(below(folder, content))
    root = str(pack.folder(tmp_path / "both", files))
    with pytest.raises(
        UserError, match=r"both .*e, --dataset=ade20k/full or --dataset"
    ):
        ade20k.find(root)
    for edition in ade20k.EDITIONS:
        assert ade20k.find(root, edition).config == edition


def test_one_split_alone(pack, releases, edition, tmp_path):
    folder, files = releases[edition]
    files = {n: d for n, d in below(folder, files).items() if "/training/" not in n}
    listing = ade20k.find(str(pack.folder(tmp_path / "part", files)))
    assert list(listing.splits) == ["validation"]
    assert "train has 0 of 2" in listing.notes[0]


def test_without_scenes(pack, releases, tmp_path):
    files = dict(releases["challenge"][1])
    del files["sceneCategories.txt"]
    listing = ade20k.find(str(pack.folder(tmp_path / "none", files)))
    assert listing.notes[1:] == [
        "no sceneCategories.txt: the images have no scenes as classes"
    ]
    assert listing.classes == []
    assert {e.label for e in listing.splits["train"]} == {-1}


def test_scenes_of_some_images(pack, releases, tmp_path):
    files = dict(releases["challenge"][1])
    files["sceneCategories.txt"] = b"ADE_train_00000002 street\n\nADE_test_1 sea\n"
    listing = ade20k.find(str(pack.folder(tmp_path / "some", files)))
    assert listing.classes == ["street"]
    assert [e.label for e in listing.splits["train"]] == [-1, 0, -1]


@pytest.mark.parametrize("content", [b"<html>\n", b"a b c\n", b"\xff\xfe"])
def test_a_list_of_scenes_that_is_none(pack, releases, tmp_path, content):
    files = releases["challenge"][1] | {"sceneCategories.txt": content}
    root = str(pack.folder(tmp_path / "none", files))
    expected = r"sceneCategories\.txt is not ADE20K's list .*: download it again, or re"
    with pytest.raises(UserError, match=expected):
        ade20k.find(root)


def test_without_a_source(tmp_path, source, edition):
    url = {
        "full": "csail.mit.edu/vision/datasets/ADE20K ",
        "challenge": "csail.mit.edu/places",
    }[edition]
    how = rf"get ADE.*{url}.*images: non-commercial research and education"
    for name in ("ade20k", f"ade20k/{edition}"):
        with pytest.raises(UserError, match=f"={name} needs --source=DIR.*: {how}"):
            BUILDERS[name]()
        with pytest.raises(UserError, match=f"does not exist: {how}"):
            BUILDERS[name](str(tmp_path / "nowhere"))
        (tmp_path / "a_file").touch()
        with pytest.raises(UserError, match=f"a_file is a file, not a folder: {how}"):
            BUILDERS[name](str(tmp_path / "a_file"))
        with pytest.raises(
            UserError, match=f"has no images in ADE.*/training.*: {how}"
        ):
            BUILDERS[name](str(tmp_path))


def test_the_other_edition(source, edition):
    (other,) = set(ade20k.EDITIONS) - {edition}
    expected = f"not hold ADE20K {other}, but {edition} .--dataset=ade20k/{edition}.: g"
    with pytest.raises(UserError, match=expected):
        ade20k.find(str(source), other)


def test_images_by_other_names(pack, tmp_path):
    root = pack.folder(tmp_path / "other", {f"{CHALLENGE}/images/training/a.jpg": b"x"})
    expected = r"images/training of .* has no image .* ADE20K, as ADE_val.*, but a\.jpg"
    with pytest.raises(UserError, match=expected):
        ade20k.find(str(root))


def test_other_files_are_counted(pack, releases, edition, tmp_path):
    folder, files = releases[edition]
    images = next(name for name in files if name.endswith(".jpg")).rpartition("/")[0]
    files = files | {f"{images}/list.txt": b"", f"{images}/thumb.jpg": b""}
    listing = ade20k.find(str(pack.folder(tmp_path / "more", below(folder, files))))
    assert listing.ignored == 2


def test_a_zip_that_is_cut_off(pack, releases, edition, tmp_path):
    folder, files = releases[edition]
    data = pack.zip(below(folder, files))[:-100]
    root = pack.folder(tmp_path / "cut", {f"{folder}.zip": data})
    with pytest.raises(UserError, match=rf"{folder}\.zip is not a whole zip .*again"):
        ade20k.find(str(root))


def test_a_text_file_is_refused_by_name(source, edition, tmp_path):
    path = next(source.rglob("ADE_train_00000002.jpg"))
    path.write_bytes(b"<html>")
    listing = ade20k.find(str(source))
    with pytest.raises(ImageError, match=r"ADE_train_00000002\.jpg is not an image"):
        write_dataset(listing, name="ade20k", data_dir=tmp_path / "data")
    prepared = write_dataset(
        listing, name="ade20k", data_dir=tmp_path / "data", skip_broken=True
    )
    assert list(prepared.refused) == [str(path)]


def test_the_real_images(real_samples):
    listing = ade20k.find(str(real_samples / "data" / "ade20k"))
    assert listing.config == "challenge" and listing.ignored == 0
    assert len(listing.splits["validation"]) == 3
    scenes = {e.key: listing.classes[e.label] for e in listing.splits["validation"]}
    text = real_samples / "data" / "ade20k" / CHALLENGE / "sceneCategories.txt"
    for name, scene in scenes.items():
        assert f"{name.removesuffix('.jpg')} {scene}\n" in text.read_text()
