import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import movq_jax
from movq_jax.data.builders import folder as builder
from movq_jax.data.images import decode_image
from movq_jax.data.preparing.writing import write_dataset
from movq_jax.data.sources import Source, open_split
from movq_jax.data.tokens.cache import TokenCache, token_batches
from movq_jax.data.transforms import resize_short_side
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import write_bundle
from movq_jax.tools import command, tokenize

TRAIN = 9


def picture(number):
    """Return uint8 [20, 24, 3], smooth and no two alike."""
    y, x = np.mgrid[:20, :24] / (3 + number)
    waves = [np.sin(x + c) + np.cos(y * (c + 1)) for c in range(3)]
    return np.uint8(np.stack(waves, axis=-1) * 60 + 128)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data dir with the dataset `small`: 9 and 3 pictures of two classes."""
    source = tmp_path_factory.mktemp("pictures")
    for split, count in {"train": TRAIN, "val": 3}.items():
        for number in range(count):
            path = source / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(number)).save(path)
    data_dir = tmp_path_factory.mktemp("data")
    write_dataset(builder.find(str(source)), name="small", data_dir=data_dir)
    return data_dir


@pytest.fixture
def out(tmp_path):
    return tmp_path / "tokens"


@pytest.fixture
def run(data_dir, out, capsys):
    """A function that runs the command: code, stdout, stderr."""

    def run_command(*flags, model="runs/a", size=8):
        argv = [f"--model={model}", "--dataset=small", f"--data-dir={data_dir}"]
        argv += [f"--out={out}"] + ([f"--image-size={size}"] if size else [])
        code = command.run(tokenize.main, [*argv, *flags])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


@pytest.fixture
def fake(fake, monkeypatch):
    """The stand-in, with names for its codebooks."""
    books = ("red", "green", "blue")
    kind = type(movq_jax.load("any"))
    monkeypatch.setattr(kind, "channel_books", books, raising=False)
    fake.made.clear()
    return fake


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pixels(data_dir, size, split="train"):
    """Return the split's images as they are encoded, and their labels, in its order."""
    place = SimpleNamespace(dataset="small", data_dir=str(data_dir))
    source = open_split(place, split)
    images, labels = [], []
    for number in range(len(source)):
        image = resize_short_side(
            decode_image(source[number]["image"]), size, "bicubic"
        )
        left = (image.shape[1] - size) // 2
        images.append(image[:size, left : left + size])
        labels.append(source[number]["label"])
    return np.stack(images), labels


QUANTIZERS = {
    "multichannel": {
        "name": "multichannel",
        "codebook_size": 32,
        "dim": 4,
        "num_channels": 2,
    },
    "residual": {
        "name": "residual",
        "codebook_size": 16,
        "dim": 4,
        "num_channels": 3,
    },
    "dual": {
        "name": "dual",
        "codebook_size": (24, 16),
        "dim": (8, 4),
        "depth": 1,
        "heads": 2,
        "ffn": 16,
    },
    "fsq": {"name": "fsq", "levels": (8, 5, 3)},
    "lfq": {"name": "lfq", "bits": 18, "group": 9},
}
EXPECTED = {  # sizes and names of the channels' books, type of the stored indices
    "multichannel": ([32, 32], ["codebook", "codebook"], "uint16"),
    "residual": ([16] * 3, ["codebook"] * 3, "uint16"),
    "dual": ([24, 16], ["global_codebook", "local_codebook"], "uint16"),
    "fsq": ([120], ["codebook"], "uint16"),
    "lfq": ([2**18], ["codebook"], "uint32"),
}


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_the_ids_are_those_of_encode(
    kind, run, out, data_dir, tmp_path, tiny_movq, fill
):
    """In the split's order, with labels; those of the mirrored images, too."""
    model = tiny_movq | {"quantizer": QUANTIZERS[kind]}
    tokenizer = build_tokenizer(model)
    image = np.zeros((1, tokenizer.factor, tokenizer.factor, 3), np.float32)
    write_bundle(
        tmp_path / "model",
        kind="tokenizer",
        params=fill(tokenizer, image),
        model=model,
        protocol={},
    )
    code, said, err = run("--flip", "--micro-batch=2", model=tmp_path / "model")
    assert (code, err) == (0, "")
    tok = movq_jax.load(tmp_path / "model", micro_batch=2)
    images, labels = pixels(data_dir, 8)
    plain, mirrored = tok.encode(images), tok.encode(images[:, :, ::-1])
    assert np.any(plain != mirrored)

    cache = TokenCache.open(out)
    cache.check_fits(tok.fingerprint, grid=(2, 2))
    ids = np.stack([cache[number]["ids"] for number in range(len(cache))])
    np.testing.assert_array_equal(ids, plain)
    assert [cache[number]["label"] for number in range(len(cache))] == labels
    ids, _ = cache.read(range(TRAIN), np.ones(TRAIN, bool))
    np.testing.assert_array_equal(ids, mirrored)

    manifest = json.loads((out / "manifest.json").read_text())
    sizes, books, dtype = EXPECTED[kind]
    assert manifest["codebook_sizes"] == sizes
    assert manifest["channel_books"] == books
    assert manifest["dtype"] == dtype
    assert manifest["num_channels"] == plain.shape[-1] == len(sizes)
    assert f"9 images as 2 x 2 x {len(sizes)} indices, each mirrored, too" in said


def test_the_manifest(run, out, data_dir, fake):
    code, said, err = run("--split=validation", "--json")
    assert code == 0 and "3 images as 2 x 2 x 3 indices" in err
    manifest = json.loads((out / "manifest.json").read_text())
    prepared = json.loads((data_dir / "small" / "1.0.0" / "prepared.json").read_text())
    (shard,) = manifest.pop("shards")
    assert manifest == {
        "format_version": 1,
        "fingerprint": "abc123",
        "codebook_sizes": [32, 32, 32],
        "channel_books": ["red", "green", "blue"],
        "num_channels": 3,
        "factor": 4,
        "image_size": 8,
        "grid": [2, 2],
        "dtype": "uint16",
        "preprocessing": manifest["preprocessing"],
        "flip": False,
        "micro_batch": 1,
        "dataset": "small/1.0.0",
        "dataset_fingerprint": prepared["fingerprint"],
        "split": "validation",
        "num_examples": 3,
        "num_shards": 1,
        "classes": ["a", "b"],
        "count": 3,
        "refused": [],
    }
    steps = manifest["preprocessing"]
    assert steps["resize"]["name"] == "short_side" and steps["image_size"] == 8
    assert steps["resize"]["resample"] == "bicubic"
    assert steps["crop"]["name"] == "center"
    assert shard["records"] == 3 and len(shard["sha256"]) == 64
    record = json.loads(said)
    assert record["written"] == [shard["file"]] and record["finished"]
    assert record["plan"]["fingerprint"] == record["model"]["fingerprint"] == "abc123"


def test_a_dataset_that_others_prepared(run, out, data_dir, fake, tmp_path):
    """Without prepared.json nobody knows what it was made from."""
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data" / "small" / "1.0.0" / "prepared.json").unlink()
    assert run(f"--data-dir={tmp_path / 'data'}")[0] == 0
    plan = TokenCache.open(out).manifest.plan
    assert plan.dataset_fingerprint is None and plan.classes == ("a", "b")


def test_images_are_cut_as_in_evaluation(run, out, fake, monkeypatch, tmp_path):
    """What the bundle says; the size of the run, where the bundle leaves it open."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "run" / "model" / name).write_text("")
    code, _, err = run(size=None, model=tmp_path / "run")
    assert code == 2 and "does not tell which images" in err and not out.exists()

    protocol = {"eval": {"resize": {"name": "squash"}, "crop": {"name": "none"}}}
    plain = movq_jax.load

    def load(*args, **kwargs):
        tok = plain(*args, **kwargs)
        tok.protocol = protocol
        return tok

    monkeypatch.setattr(movq_jax, "load", load)
    config = {"data": {"image_size": 12}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert run(size=None, model=tmp_path / "run")[0] == 0
    plan = TokenCache.open(out).manifest.plan
    assert plan.image_size == plan.preprocessing["image_size"] == 12
    assert plan.preprocessing["resize"]["name"] == "squash"
    assert plan.preprocessing["crop"] == {"name": "none"}
    # Another size into the same folder.
    before = contents(out)
    code, _, err = run(size=8, model=tmp_path / "run")
    assert code == 2 and err.count("\n") == 1
    assert f"{out} holds another token cache: its 'image_size' is 12, not 8" in err
    assert contents(out) == before


def test_any_number_of_processes_writes_the_same_bytes(run, out, fake, tmp_path):
    assert run("--shards=4", "--flip")[0] == 0
    clean = contents(out)
    assert len(clean) == 2 * 4 + 2
    out.rename(tmp_path / "clean")
    for index in (2, 0, 1):
        code, said, _ = run("--shards=4", "--flip", f"--process={index}/3")
        assert code == 0
    assert contents(out) == clean
    assert "9 images as 2 x 2 x 3 indices, each mirrored, too" in said
    out.rename(tmp_path / "three")
    code, said, _ = run("--shards=4", "--flip", "--process=1/2", "--json")
    assert json.loads(said)["finished"] is False
    # The same on one process alone: the shards that are there stay.
    code, said, _ = run("--flip", "--json")
    record = json.loads(said)
    assert record["finished"] and record["written"] == [
        f"tokens.array_record-0000{shard}-of-00004" for shard in (0, 2)
    ]
    assert contents(out) == clean


def test_a_second_time_encodes_nothing(run, out, fake):
    assert run("--shards=2")[0] == 0
    before = contents(out)
    code, said, _ = run("--shards=2")
    assert code == 0 and "all are there of 2 shards" in said
    assert fake.made[-1].batches == [] and contents(out) == before


def test_a_process_without_a_shard_says_so(run, fake):
    code, said, err = run("--process=1/2")
    assert code == 0 and "wrote 0 of 1 shards" in said and "1 are missing" in said
    assert "no shard for this process: there are 1 in all (--shards=2" in err


def test_the_micro_batch_goes_on_as_it_began(run, out, fake):
    """The default differs by device; the indices might."""
    assert run("--shards=2", "--process=0/2", "--micro-batch=3")[0] == 0
    fake.default_micro_batch = 8
    assert run("--process=1/2")[0] == 0
    assert TokenCache.open(out).manifest.plan.micro_batch == 3
    assert {shape[0] for shape in fake.made[-1].batches} <= {1, 2, 3}
    code, _, err = run("--micro-batch=4")
    assert code == 2 and "its 'micro_batch' is 3, not 4" in err


def test_another_model_is_refused(run, out, fake):
    assert run()[0] == 0
    before = contents(out)
    fake.fingerprint = "def456"
    code, _, err = run()
    assert code == 2 and err.count("\n") == 1
    assert "its model's fingerprint is abc123, not def456; choose another --out" in err
    for flags in (["--split=validation"], ["--flip"], ["--shards=3"]):
        fake.fingerprint = "abc123"
        code, _, err = run(*flags)
        assert code == 2 and "holds another token cache" in err
    assert contents(out) == before


def test_want_of_memory_is_met_before_anything_is_written(run, out, fake):
    fake.max_height = 4
    code, _, err = run("--micro-batch=5")
    assert code == 2 and "not enough memory for 5 images of 8 x 8 at once" in err
    assert not out.exists()


@pytest.fixture
def broken(monkeypatch):
    """Let two of the training images be no images."""
    read = Source.__getitem__

    def damaged(self, index):
        record = read(self, index)
        bad = "train" in self.name and index in (2, 5)
        return record | {"image": b"no image"} if bad else record

    monkeypatch.setattr(Source, "__getitem__", damaged)


def test_images_that_cannot_be_used_are_listed(run, out, fake, broken):
    code, said, err = run("--shards=3", "--micro-batch=2", "--json")
    assert code == 4 and err.count("refused: ") == 2
    assert "2 images of small/1.0.0 train refused; the others are in" in err
    cache = TokenCache.open(out)
    assert len(cache) == 7 and len(cache.manifest.refused) == 2
    assert json.loads(said)["refused"][0]["file"] == cache.manifest.refused[0].file
    # The cache lacks them for good, and says so again.
    assert run("--shards=3")[0] == 4


def test_verify(run, out, fake, capsys):
    assert command.run(tokenize.main, ["--verify", f"--out={out}"]) == 2
    assert "there is no token cache in" in capsys.readouterr().err
    assert run("--shards=2", "--process=0/2")[0] == 0
    assert command.run(tokenize.main, ["--verify", f"--out={out}"]) == 2
    assert "is not finished: 1 of 2 shards are missing" in capsys.readouterr().err
    assert run()[0] == 0
    assert command.run(tokenize.main, ["--verify", f"--out={out}"]) == 0
    assert "9 images in 2 shards, all as the man" in capsys.readouterr().out
    shard = out / "tokens.array_record-00001-of-00002"
    data = bytearray(shard.read_bytes())
    ids = TokenCache.open(out)[8]["ids"].astype("<u2")
    data[data.rindex(ids.tobytes())] ^= 1
    shard.write_bytes(data)
    assert command.run(tokenize.main, ["--verify", f"--out={out}", "--json"]) == 2
    captured = capsys.readouterr()
    assert "-00001-of-00002: its bytes are not those" in captured.err
    assert json.loads(captured.out)["problems"]
    shard.unlink()
    assert run()[0] == 0
    assert command.run(tokenize.main, ["--verify", f"--out={out}"]) == 0


def test_batches_of_it(run, out, fake):
    assert run("--flip")[0] == 0
    with token_batches(
        out, fingerprint="abc123", seed=0, batch_size=4, start=0
    ) as batches:
        batch = next(batches)
    assert batch["ids"].shape == (4, 2, 2, 3) and batch["label"].shape == (4,)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=nothing"], "dataset 'nothing' is not prepared in"),
        (["--dataset=/"], "--dataset=/ names files, not a prepared dataset: make one"),
        (["--split=test"], "has no split 'test'; it has train, validation"),
        (["--out=gs://bucket/a"], "--out=gs://bucket/a is a bucket"),
        (["--process=4/4"], "'4/4' is not I/N with I from 0 to N - 1"),
        (["--process=1"], "'1' is not I/N"),
        (["--process=-1/2"], "is not I/N"),
        (["--micro-batch=2000"], "--micro-batch=2000 is above 1024"),
        (["--shards=0"], "'0' is not a positive whole number"),
        (["--image-size=10"], "images of 10 pixels a side do not fit .* multiple of 4"),
        (["--model="], "--model has an empty value"),
        (["--slpit=train"], "did you mean '--split'?"),
    ],
)
def test_wrong_flags(run, out, fake, flags, message):
    code, said, err = run(*flags)
    assert (code, said) == (2, "") and err.count("\n") == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(err)
    assert not out.exists()


def test_flags_that_are_missing(out, capsys):
    assert command.run(tokenize.main, [f"--out={out}"]) == 2
    assert "--model is missing" in capsys.readouterr().err
    assert command.run(tokenize.main, [f"--out={out}", "--model=a"]) == 2
    assert "--dataset is missing" in capsys.readouterr().err
    assert command.run(tokenize.main, ["--model=a"]) == 2
    assert "required: --out" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_met_first(run, out, fake):
    out.write_text("")
    code, _, err = run(f"--out={out / 'below'}")
    assert code == 2 and "Not a directory" in err and not fake.made
    code, _, err = run()
    assert code == 2 and "tokens is a file: name a folder" in err


def test_a_folder_with_other_files_is_left_alone(run, out, fake):
    out.mkdir()
    (out / "photo.jpg").write_text("")
    code, _, err = run()
    assert code == 2 and "holds photo.jpg and no token cache" in err
    assert [path.name for path in out.iterdir()] == ["photo.jpg"]


# Signals itself while its second shard is made.
SIGNALLED = """
import os, signal, sys
from movq_jax.data.tokens import shards as token_shards
from movq_jax.tools import command, tokenize, tokenize_pass

def write_shard(folder, plan, shard, records):
    if shard == 1:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    token_shards.write_shard(folder, plan, shard, records)

signal.signal(signal.SIGINT, signal.default_int_handler)
tokenize_pass.write_shard = write_shard
sys.exit(command.run(tokenize.main, sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def whole(data_dir, tiny_bundle, tmp_path_factory):
    """The flags of a command, and what it writes without interruption."""
    out = tmp_path_factory.mktemp("whole") / "tokens"
    flags = ["--dataset=small", f"--data-dir={data_dir}", "--image-size=8"]
    flags += [f"--model={tiny_bundle}", "--shards=4"]
    assert command.run(tokenize.main, [*flags, f"--out={out}"]) == 0
    return flags, contents(out)


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGKILL", -9)]
)
def test_a_signal_leaves_finished_shards(name, code, whole, out):
    flags, clean = whole
    result = subprocess.run(
        [sys.executable, "-c", SIGNALLED, name, *flags, f"--out={out}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    words = "finished shards are kept, the same command goes on"
    assert (words in result.stderr) == (name != "SIGKILL")
    shards = [path.name for path in out.glob("tokens.*-of-00004")]
    assert shards == ["tokens.array_record-00000-of-00004"]
    assert not (out / "manifest.json").exists()
    assert command.run(tokenize.main, [*flags, f"--out={out}"]) == 0
    assert contents(out) == clean
