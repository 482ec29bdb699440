import io
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import movq_jax
from movq_jax.errors import InputsRefused, UserError
from movq_jax.progress import Progress
from movq_jax.tools import command, feeding
from movq_jax.tools.files import InputFile


def batches(sizes, batch_size):
    items = list(enumerate(sizes))
    made = feeding.same_size_batches(
        items, size=lambda item: item[1], batch_size=batch_size
    )
    return [[index for index, _ in batch] for batch in made]


def test_batches_are_of_one_size_and_keep_the_order():
    sizes = [(8, 8), (4, 4), (8, 8), (8, 8), (4, 4), (8, 8), (2, 2)]
    assert batches(sizes, 2) == [[0, 2], [1, 4], [3, 5], [6]]
    assert batches(sizes, 1) == [[i] for i in range(7)]
    assert batches([], 2) == []


def test_the_largest_group_goes_out_when_too_much_waits(monkeypatch):
    monkeypatch.setattr(feeding, "MAX_WAITING_PIXELS", 100)
    sizes = [(2, 2), (8, 8), (5, 5), (5, 5), (2, 2)]
    assert batches(sizes, 4) == [[1], [0, 4], [2, 3]]


def test_refused_files_are_named_and_the_others_come(photos):
    (photos / "no.png").write_text("no image")
    names = ["no.png", "c.webp", "a.png"]
    files = [InputFile(photos / name, name) for name in names]
    refusals = feeding.Refusals(total=3)
    stream = io.StringIO()
    images = list(
        feeding.read_images(
            files,
            max_side=32,
            refusals=refusals,
            progress=Progress(3, "images", stream=stream),
        )
    )
    assert [(index, image.shape) for index, image in images] == [(2, (24, 32, 3))]
    assert [record["file"] for record in refusals.as_records()] == [
        str(photos / "no.png"),
        str(photos / "c.webp"),
    ]
    lines = stream.getvalue().splitlines()
    assert "no.png" in lines[0]
    assert "c.webp is 17 x 40, above --max-side=32" in lines[1]
    with pytest.raises(InputsRefused, match="2 of 3 files refused"):
        refusals.raise_if_any()


def test_pipes_and_devices_are_named_and_not_opened(tmp_path):
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)  # which would be waited for if it were opened
    files = [InputFile(path, path.name) for path in (pipe, Path("/dev/zero"))]
    refusals = feeding.Refusals(total=2)
    progress = Progress(2, "images", stream=io.StringIO())
    images = feeding.read_images(
        files, max_side=32, refusals=refusals, progress=progress
    )
    assert list(images) == []
    assert refusals.reasons == {
        str(file.path): f"{file.path} is no file but a folder, a pipe or a device"
        for file in files
    }


def test_an_image_that_memory_does_not_suffice_for_is_refused(photos, monkeypatch):
    def decode_image(path):
        raise MemoryError

    monkeypatch.setattr(feeding, "decode_image", decode_image)
    refusals = feeding.Refusals(total=1)
    images = feeding.read_images(
        [InputFile(photos / "a.png", "a")],
        max_side=32,
        refusals=refusals,
        progress=Progress(1, "images", stream=io.StringIO()),
    )
    assert list(images) == []
    (reason,) = refusals.reasons.values()
    assert reason == f"there is not enough memory to decode {photos / 'a.png'}"


def test_the_device_says_that_memory_is_short():
    """The error of jax itself, asked for 4 PiB."""
    with pytest.raises(RuntimeError) as error:
        jax.jit(lambda x: jnp.zeros((2**26, 2**26), "int8") + x)(jnp.int8(1))
    assert feeding.is_out_of_memory(error.value)
    assert feeding.is_out_of_memory(MemoryError())
    assert not feeding.is_out_of_memory(RuntimeError("INTERNAL: a bug"))
    assert not feeding.is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))


def test_another_error_of_the_model_is_no_refusal(fake):
    def broken(padded):
        raise RuntimeError("a bug")

    tok = movq_jax.load("runs/a")
    images = [(0, np.zeros((4, 4, 3), np.uint8))]
    with pytest.raises(RuntimeError, match="a bug"):
        list(feeding.run_batches(tok, images, broken, refuse=pytest.fail))


def test_a_huge_micro_batch_is_refused():
    parser = command.ArgumentParser(prog="movq thing")
    feeding.add_flags(parser)
    flags = ["--model=a", "--input=b"]
    assert parser.parse_args([*flags, "--micro-batch=1024"]).micro_batch == 1024
    for text, message in (
        ("1025", "1025 is above 1024"),
        ("9" * 5000, "--micro-batch"),
        ("0", "'0' is not a positive whole number"),
        ("-1", "not a positive whole number"),
    ):
        with pytest.raises(UserError, match=message):
            parser.parse_args([*flags, f"--micro-batch={text}"])


def test_nothing_refused_is_no_error():
    feeding.Refusals(total=2).raise_if_any()


def test_padded_batches(fake):
    tok = movq_jax.load("runs/a", micro_batch=2)
    images = [
        (i, np.zeros((*size, 3), np.uint8)) for i, size in enumerate([(5, 8), (7, 7)])
    ]
    ((batch, padded),) = feeding.padded_batches(tok, images)
    assert [index for index, _ in batch] == [0, 1]
    assert padded.shape == (2, 8, 8, 3)
