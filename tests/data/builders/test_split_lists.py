import io
import urllib.error
import urllib.request

import pytest

from movq_jax.data.builders import split_lists
from movq_jax.data.builders.split_lists import (
    CELEBAHQ_TAMING,
    FFHQ_TAMING,
    read_split_list,
)
from movq_jax.errors import UserError

NUMBERS = [3, 12, 20_001, 69_999]


@pytest.fixture
def split_list(publish, monkeypatch):
    """A short list that counts as published."""
    publish(split_lists, "FFHQ_TAMING", NUMBERS)
    return split_lists.FFHQ_TAMING


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    """The folder that is fetched into."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def website(monkeypatch):
    """What each address answers; every request is noted in `website.requests`."""

    class Website(dict):
        requests = []

        def open(self, url, timeout):
            self.requests.append(url)
            answer = self.get(url, urllib.error.URLError("no route to host"))
            if isinstance(answer, Exception):
                raise answer
            return io.BytesIO(answer)

    website = Website()
    website.requests = []
    monkeypatch.setattr(urllib.request, "urlopen", website.open)
    return website


@pytest.mark.parametrize(
    "text",
    [
        "3\n12\n20001\n69999\n",
        "69000/69999.png\r\n20000/20001.png\r\n00000/00012.png\r\n00000/00003.png",
        "# numbers\n\nimgHQ00003.npy\nimgHQ00012.npy\nimgHQ20001.npy\nimgHQ69999.npy\n",
    ],
)
def test_a_file_of_it(split_list, website, tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    assert read_split_list(split_list, str(tmp_path / "list.txt")) == set(NUMBERS)
    assert website.requests == []


def test_it_is_fetched_once(split_list, website, weights):
    text = b"00003.png\n00012.png\n20001.png\n69999.png\n"
    website[split_list.url] = text
    for _ in range(2):
        assert read_split_list(split_list) == set(NUMBERS)
    assert website.requests == [split_list.url]
    assert [path.name for path in weights.iterdir()] == ["ffhqvalidation.txt"]
    assert (weights / "ffhqvalidation.txt").read_bytes() == text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (urllib.error.URLError("no route to host"), "no route to host"),
        (urllib.error.HTTPError("", 404, "Not Found", None, None), "404: Not Found"),
        (TimeoutError("timed out"), "timed out"),
        (b"", "it has 0 lines, not 4"),
        (b"<html>\nno such page\n</html>\n!", "no number in the line '<html>'"),
        (b"1\n2\n3\n4\n", "the SHA-256 of its sorted numbers is"),
        (b"\xff\xfe\x00", "can't decode"),
    ],
)
def test_it_cannot_be_fetched(split_list, website, weights, answer, reason):
    website[split_list.url] = answer
    with pytest.raises(UserError) as caught:
        read_split_list(split_list)
    message = str(caught.value)
    assert message.startswith(
        "cannot fetch https://raw.githubusercontent.com/CompVis/taming-transformers/"
        "master/data/ffhqvalidation.txt, the 10,000 images of FFHQ that the VQ papers "
        "validate on: "
    )
    assert reason in message
    assert message.endswith(
        "; get that file on another machine, and give it as --split-list=FILE or put "
        "it into $MOVQ_JAX_WEIGHTS, else ~/.cache/movq_jax/weights"
    )
    assert not weights.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3\n12\n20001\n", "it has 3 lines, not 4"),
        ("3\n12\n20001\n69998\n", "the SHA-256 of its sorted numbers is"),
        ("3\n12\n12\n20001\n", "the SHA-256 of its sorted numbers is"),
        ("a\nb\nc\nd\n", "there is no number in the line 'a'"),
    ],
)
def test_another_list(split_list, website, weights, tmp_path, text, reason):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        read_split_list(split_list, str(tmp_path / "list.txt"))
    assert str(caught.value).startswith(
        f"{tmp_path}/list.txt is not ffhqvalidation.txt of {split_list.url}, "
        f"{split_list.what}: {reason}"
    )
    assert str(caught.value).endswith("; give the published list")
    weights.mkdir()
    (weights / "ffhqvalidation.txt").write_text(text)
    with pytest.raises(UserError, match="delete it, and it is fetched again"):
        read_split_list(split_list)
    assert website.requests == []


def test_no_such_file(split_list, tmp_path):
    with pytest.raises(UserError, match=r"cannot read the split list .*no: No such f"):
        read_split_list(split_list, str(tmp_path / "no"))
    with pytest.raises(UserError, match=r"cannot read the split list .*: Is a direct"):
        read_split_list(split_list, str(tmp_path))


def test_the_published_lists(real_samples):
    folder = real_samples / "reference" / "splits"
    if not folder.is_dir():
        pytest.skip(f"{folder}, with the published lists, is not there")
    ffhq = read_split_list(FFHQ_TAMING, str(folder / "ffhq_taming_validation_ids.txt"))
    assert len(ffhq) == 10_000 and {0, 7, 14} <= ffhq
    assert sum(number >= 60_000 for number in ffhq) == 1_397
    celebahq = read_split_list(
        CELEBAHQ_TAMING, str(folder / "celebahq_taming_validation_ids.txt")
    )
    assert len(celebahq) == 5_000 and max(celebahq) < 30_000
