import json
import os

import numpy as np
import pytest
from PIL import Image

from movq_jax.tools import command, decode, encode, reconstruct


@pytest.fixture
def codes(tmp_path):
    return tmp_path / "codes.npz"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run_encode(photos, codes, *flags):
    argv = ["--model=runs/a", f"--input={photos}", f"--output={codes}", *flags]
    return command.run(encode.main, argv)


def run_decode(codes, out, *flags):
    argv = ["--model=runs/a", f"--input={codes}", f"--output={out}", *flags]
    return command.run(decode.main, argv)


def change(codes, **parts):
    """Write the file anew with other arrays; None removes one."""
    with np.load(codes) as archive:
        arrays = dict(archive) | parts
    np.savez(codes, **{key: part for key, part in arrays.items() if part is not None})


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_decode_gives_the_bits_of_reconstruct(
    photos, codes, out, tmp_path, fake, micro_batch
):
    flag = f"--micro-batch={micro_batch}"
    other = tmp_path / "reconstructed"
    argv = ["--model=runs/a", f"--input={photos}", f"--output={other}", flag]
    assert command.run(reconstruct.main, argv) == 0
    assert run_encode(photos, codes, flag) == 0
    fake.default_micro_batch = 2  # decode takes what the file says
    assert run_decode(codes, out) == 0
    paths = sorted(path.relative_to(out) for path in out.rglob("*.png"))
    assert len(paths) == 6
    for path in paths:
        expected = (other / "reconstructions" / path).read_bytes()
        assert (out / path).read_bytes() == expected


def test_the_file_is_read_with_numpy_alone(photos, codes, fake, capsys):
    assert run_encode(photos, codes, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    with np.load(codes, allow_pickle=False) as archive:
        assert archive["names"].tolist() == [
            "a.jpg",
            "a.png",
            "b",
            "c",
            "tiny",
            "trip/a",
        ]
        assert archive["fingerprint"] == "abc123"
        start, stop = archive["offsets"][2:4]
        ids = archive["ids"][start:stop].reshape(*archive["grids"][2], -1)
        assert ids.shape == (6, 8, 3) and ids.dtype == np.int32
        assert archive["sizes"][2].tolist() == [21, 30]
        assert record["num_indices"] == archive["ids"].size
    assert record["num_images"] == 6


def test_bad_files_are_left_out(photos, codes, out, fake, capsys):
    (photos / "letter.png").write_text("no image")
    assert run_encode(photos, codes) == 4
    assert "letter.png" in capsys.readouterr().err
    assert run_decode(codes, out) == 0
    assert len(list(out.rglob("*.png"))) == 6


def test_what_memory_does_not_suffice_for_is_named(photos, codes, out, fake, capsys):
    """And the images before and after it are kept."""
    fake.max_height = 24
    assert run_encode(photos, codes, "--micro-batch=2", "--json") == 4
    captured = capsys.readouterr()
    assert "c.webp: it is 17 x 40, and there is not enough memory" in captured.err
    assert len(json.loads(captured.out)["refused"]) == 1
    with np.load(codes) as archive:
        assert archive["names"].tolist() == ["a.jpg", "a.png", "b", "tiny", "trip/a"]
    fake.max_height = 20
    assert run_decode(codes, out, "--json") == 4
    captured = capsys.readouterr()
    assert "codes.npz: b: it is 30 x 21, and there is not enough memory" in captured.err
    assert "encode it smaller or with a lower --micro-batch" in captured.err
    assert "4 of 5 files refused, see above; the others are done" in captured.err
    record = json.loads(captured.out)
    assert (record["num_images"], len(record["refused"])) == (1, 4)
    assert [path.name for path in out.rglob("*.png")] == ["tiny.png"]


def test_a_pipe_is_not_opened(tmp_path, photos, codes, out, fake, capsys):
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    assert run_encode(pipe, codes) == 4
    assert "pipe.npz is no file but a folder, a pipe" in capsys.readouterr().err
    assert run_decode(pipe, out) == 2
    assert "or is a folder, a pipe or a device" in capsys.readouterr().err


def test_places_that_cannot_be_written_are_met_first(photos, tmp_path, fake, capsys):
    (tmp_path / "file").write_text("")
    assert run_encode(photos, tmp_path / "file" / "codes.npz") == 2
    assert "file/codes.npz: Not a directory" in capsys.readouterr().err
    assert not fake.made
    codes = tmp_path / "codes.npz"
    assert run_encode(photos, codes) == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trip").write_text("")
    assert run_decode(codes, tmp_path / "out") == 2
    assert "trip/a.png: Not a directory" in capsys.readouterr().err
    assert len(fake.made) == 1 and run_decode(codes, "") == 2
    assert "--output has an empty value" in capsys.readouterr().err


def test_a_huge_micro_batch_in_the_file_is_refused(photos, codes, out, fake, capsys):
    assert run_encode(photos, codes) == 0
    change(codes, micro_batch=np.int64(2**40))
    assert run_decode(codes, out) == 2
    assert "'micro_batch' is 1099511627776, above 1024" in capsys.readouterr().err


def test_nothing_to_encode_writes_nothing(tmp_path, codes, fake):
    (tmp_path / "notes.txt").write_text("no image")
    assert run_encode(tmp_path / "notes.txt", codes) == 4
    assert not codes.exists()


def test_the_output_must_be_an_npz(photos, tmp_path, fake, capsys):
    assert run_encode(photos, tmp_path / "codes") == 2
    assert "must name a file that ends in .npz" in capsys.readouterr().err


def test_another_models_indices_are_refused(photos, codes, out, fake, capsys):
    assert run_encode(photos, codes) == 0
    fake.fingerprint = "def456"
    assert run_decode(codes, out) == 2
    error = capsys.readouterr().err
    assert "abc123" in error and "def456" in error and "runs/a" in error
    assert not out.exists()


@pytest.mark.parametrize("value", [-1, 32, 2**40])
def test_indices_out_of_range_are_refused(photos, codes, out, fake, capsys, value):
    assert run_encode(photos, codes) == 0
    with np.load(codes) as archive:
        ids = archive["ids"].astype(np.int64)
    ids[-1, 0] = value
    change(codes, ids=ids)
    assert run_decode(codes, out) == 2
    error = capsys.readouterr().err
    assert ("trip/a" in error and "0 to 31" in error) or "no codebook has" in error
    assert not out.exists()


def test_another_number_of_channels_is_refused(photos, codes, out, fake, capsys):
    assert run_encode(photos, codes) == 0
    with np.load(codes) as archive:
        ids = archive["ids"][:, :1]
    change(codes, ids=ids)
    assert run_decode(codes, out) == 2
    assert "has 1 indices a position, the model has 3" in capsys.readouterr().err


def test_what_is_not_from_encode_is_refused(tmp_path, out, fake, capsys):
    other = tmp_path / "other.npz"
    np.savez(other, arr_0=np.zeros(3))
    assert run_decode(other, out) == 2
    assert "was not written by `movq encode`" in capsys.readouterr().err


def test_pictures_of_others_are_not_replaced(photos, codes, fake, capsys):
    before = (photos / "b.png").read_bytes()
    assert run_encode(photos, codes) == 0
    assert run_decode(codes, photos) == 2
    assert "is not a result of movq" in capsys.readouterr().err
    assert (photos / "b.png").read_bytes() == before


def test_decoding_twice_is_fine(photos, codes, out, fake, capsys):
    assert run_encode(photos, codes) == 0
    assert run_decode(codes, out) == 0
    capsys.readouterr()
    assert run_decode(codes, out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 6


def test_a_real_model_gives_the_bits_of_reconstruct(tiny_bundle, tmp_path, codes, out):
    photos, other = tmp_path / "photos", tmp_path / "reconstructed"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"a": (8, 12), "b": (7, 11), "c": (16, 5), "d": (8, 9)}.items():
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(photos / f"{name}.png")
    model = f"--model={tiny_bundle}"
    inputs = [model, f"--input={photos}", "--micro-batch=2"]
    assert command.run(reconstruct.main, [*inputs, f"--output={other}"]) == 0
    assert command.run(encode.main, [*inputs, f"--output={codes}"]) == 0
    flags = [model, f"--input={codes}", f"--output={out}"]
    assert command.run(decode.main, flags) == 0
    for name in "abcd":
        expected = (other / "reconstructions" / f"{name}.png").read_bytes()
        assert (out / f"{name}.png").read_bytes() == expected
