import pytest

from movq_jax.data.builders.archives import list_tar, list_zip
from movq_jax.data.builders.listing import Example, Listing, count_notes, file_size


@pytest.fixture
def files(pack, tmp_path):
    """The same file in a folder, a zip and a tar."""
    content = {"1.jpg": b"content"}
    pack.folder(tmp_path, content)
    (tmp_path / "all.zip").write_bytes(pack.zip(content))
    (tmp_path / "all.tar").write_bytes(pack.tar(content))
    return [
        tmp_path / "1.jpg",
        list_zip(tmp_path / "all.zip")["1.jpg"],
        list_tar(tmp_path / "all.tar")["1.jpg"],
    ]


def test_sizes_are_known_without_reading(files, tmp_path):
    assert [file_size(file) for file in files] == [7, 7, 7]
    files[0].unlink()
    (tmp_path / "link").symlink_to(files[0])
    for none in (files[0], tmp_path, tmp_path / "link", tmp_path / "all.zip" / "a"):
        assert file_size(none) == 0


def test_a_fingerprint_does_not_depend_on_the_place(files):
    listings = [
        Listing(description=str(file), splits={"train": [Example(file, "1.jpg")]})
        for file in files
    ]
    assert len({listing.fingerprint() for listing in listings}) == 1


def test_notes_of_counts(files):
    official = {"train": 1_000, "validation": 2}
    two = [Example(files[0], "a"), Example(files[0], "b")]
    assert count_notes("SET", official, {"train": two * 500, "validation": two}) == []
    assert count_notes("SET", official, {"train": two, "test": two}) == [
        "a part of SET: train has 2 of 1,000 images, validation has 0 of 2 images"
    ]
    assert count_notes("SET", official, {"train": two * 501, "validation": two}) == [
        "more than SET: train has 1,002 of 1,000 images, validation has 2 of 2 images"
    ]
