import json
import os

import numpy as np
import pytest
from PIL import Image

from movq_jax.tools import command, reconstruct


def run(photos, out, *flags):
    argv = ["--model=runs/a", f"--input={photos}", f"--output={out}", *flags]
    return command.run(reconstruct.main, argv)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


NAMES = ["a.jpg", "a.png", "b", "c", "tiny", "trip/a"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_everything_is_written(photos, out, fake, capsys):
    assert run(photos, out) == 0
    for folder in ("reconstructions", "side_by_side"):
        found = sorted(
            path.relative_to(out / folder).with_suffix("").as_posix()
            for path in (out / folder).rglob("*.png")
        )
        assert found == NAMES
    result = read(out / "reconstructions" / "b.png")
    original = read(photos / "b.png")
    assert result.shape == original.shape
    assert np.abs(result.astype(int) - original)[2:].mean() < 20
    assert read(out / "overview.png").ndim == 3
    assert not list(out.rglob("*.tmp"))

    text = capsys.readouterr().out
    for name in NAMES:
        assert name in text
    assert "mean of 6" in text and "32 x 24" in text


def test_record_carries_its_protocol(photos, out, fake, capsys):
    assert run(photos, out, "--json", "--micro-batch=2") == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert "mean of 6" in captured.err
    assert record == json.loads((out / "metrics.json").read_text())
    assert record["model"] == {"path": "runs/a", "fingerprint": "abc123"}
    assert record["protocol"]["num_images"] == 6
    assert record["protocol"]["micro_batch"] == 2
    assert record["protocol"]["model"] == {"weights": "ema"}
    rows = {row["name"]: row for row in record["images"]}
    assert list(rows) == NAMES
    assert rows["trip/a"]["file"] == str(photos / "trip" / "a.png")
    assert (rows["b"]["height"], rows["b"]["width"]) == (21, 30)
    assert rows["tiny"]["ssim"] is None and rows["tiny"]["psnr"] > 0
    assert record["mean"]["ssim_left_out"] == 1
    mean = np.mean([row["psnr"] for row in rows.values()])
    assert record["mean"]["psnr"] == pytest.approx(mean)


def test_images_of_one_padded_size_share_a_batch(photos, out, fake):
    assert run(photos, out, "--micro_batch=4") == 0
    (tok,) = fake.made
    assert sorted(tok.batches) == [(1, 4, 8, 3), (1, 40, 20, 3), (4, 24, 32, 3)]


def test_bad_files_are_named_and_the_others_done(photos, out, fake, capsys):
    (photos / "notes.txt").write_text("not even by name")
    (photos / "letter.png").write_text("no image")
    os.mkfifo(photos / "pipe.png")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    Image.new("RGB", (50, 4)).save(photos / "wide.png")
    assert run(photos, out, "--max-side=40") == 4
    error = capsys.readouterr().err
    wide = "wide.png is 50 x 4, above --max-side=40"
    for name in ("letter.png", "pipe.png is no file", "cut.jpg", wide):
        assert name in error
    assert "passed over: 1 file that is no image by name (.txt)" in error
    assert "error: 4 of 10 files refused, see above; the others are done" in error
    record = json.loads((out / "metrics.json").read_text())
    assert [row["name"] for row in record["images"]] == NAMES
    assert len(record["refused"]) == 4


def test_images_that_memory_does_not_suffice_for_are_named(photos, out, fake, capsys):
    fake.max_height = 24
    assert run(photos, out, "--micro-batch=2") == 4
    (line,) = (
        line for line in capsys.readouterr().err.splitlines() if "refused: " in line
    )
    assert line == (
        f"refused: {photos / 'c.webp'}: it is 17 x 40, and there is not enough memory "
        "for 2 of that size at once: make it smaller, lower --micro-batch, or use "
        "another device (--max-side=39 refuses such images at once)"
    )
    record = json.loads((out / "metrics.json").read_text())
    assert [row["name"] for row in record["images"]] == [n for n in NAMES if n != "c"]
    assert [refused["file"] for refused in record["refused"]] == [
        str(photos / "c.webp")
    ]


def test_memory_of_the_host_may_be_short_too(photos, out, fake, monkeypatch):
    save_pair = reconstruct.save_pair

    def short(output, row, *images):
        if row.name == "c":
            raise MemoryError
        save_pair(output, row, *images)

    monkeypatch.setattr(reconstruct, "save_pair", short)
    assert run(photos, out) == 4
    record = json.loads((out / "metrics.json").read_text())
    assert [row["name"] for row in record["images"]] == [n for n in NAMES if n != "c"]


@pytest.mark.parametrize("flag", ["--output=", "--model=", "--input=", "--json="])
def test_an_empty_value_is_refused(photos, out, fake, capsys, flag):
    assert run(photos, out, flag) == 2
    name = flag.removesuffix("=")
    assert f"error: {name} has an empty value" in capsys.readouterr().err
    assert not fake.made and not out.exists()


def test_a_place_that_cannot_be_written_is_met_before_the_work(
    photos, tmp_path, fake, capsys
):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert run(photos, out) == 2
    assert "cannot write" in capsys.readouterr().err
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "side_by_side").write_text("")
    assert run(photos, tmp_path / "taken") == 2
    assert "side_by_side" in capsys.readouterr().err
    assert run(photos, tmp_path / "out", f"--json={tmp_path / 'taken'}") == 2
    assert "taken: it is a folder" in capsys.readouterr().err
    assert not fake.made and not (tmp_path / "out").exists()


def test_nothing_but_bad_files(tmp_path, out, fake, capsys):
    (tmp_path / "notes.txt").write_text("no image")
    assert run(tmp_path / "notes.txt", out) == 4
    assert "1 of 1 files refused" in capsys.readouterr().err
    assert json.loads((out / "metrics.json").read_text())["images"] == []


def test_inputs_that_do_not_exist(photos, out, fake, capsys):
    assert run(photos / "none", out) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert not out.exists()


def test_inputs_are_never_overwritten(photos, fake, capsys):
    before = (photos / "b.png").read_bytes()
    assert run(photos, photos) == 2
    assert "--output is the input" in capsys.readouterr().err
    nested = photos / "reconstructions"
    nested.mkdir()
    (photos / "b.png").rename(nested / "b.png")
    assert run(nested / "b.png", photos) == 2
    assert "would overwrite an input" in capsys.readouterr().err
    assert (nested / "b.png").read_bytes() == before


def test_a_second_run_gives_the_same_files(photos, fake):
    out = photos / "out"
    assert run(photos, out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    assert run(photos, out) == 0
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before


def test_the_overview_shows_the_first(photos, out, fake):
    assert run(photos, out, "--overview=2", "--micro-batch=4") == 0
    small = read(out / "overview.png").shape
    assert run(photos, out) == 0
    full = read(out / "overview.png").shape
    assert small[0] < full[0] or small[1] < full[1]
