import io

import numpy as np
import pytest

from movq_jax.errors import InputsRefused
from movq_jax.progress import Progress
from movq_jax.tools import feeding
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


def test_nothing_refused_is_no_error():
    feeding.Refusals(total=2).raise_if_any()


def test_padded_batches(fake):
    import movq_jax

    tok = movq_jax.load("runs/a", micro_batch=2)
    images = [
        (i, np.zeros((*size, 3), np.uint8)) for i, size in enumerate([(5, 8), (7, 7)])
    ]
    ((batch, padded),) = feeding.padded_batches(tok, images)
    assert [index for index, _ in batch] == [0, 1]
    assert padded.shape == (2, 8, 8, 3)
