"""Where a run's numbers and pictures go: TensorBoard and JSON lines."""

import json
import math

import numpy as np
import tensorboardX
from etils import epath

from movq_jax.atomic import write_text

METRICS_FILE = "metrics.jsonl"


class LogWriters:
    """Writes scalars to TensorBoard and `metrics.jsonl`, pictures to TensorBoard.

    On resuming from step n, what an earlier process logged beyond n is dropped, so
    that each step is there once.
    """

    def __init__(self, workdir: str, *, resumed_at: int) -> None:
        folder = epath.Path(workdir)
        self._metrics = folder / METRICS_FILE
        write_text(self._metrics, _lines_up_to(self._metrics, resumed_at))
        self._file = self._metrics.open("a")
        self._board = tensorboardX.SummaryWriter(
            str(folder / "tensorboard"), purge_step=resumed_at + 1
        )

    def __enter__(self) -> "LogWriters":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._board.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs name -> value; what is not finite becomes null in the JSON lines."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        self._board.flush()

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Logs name -> uint8 [H, W, 3]."""
        for name, image in images.items():
            self._board.add_image(name, image, step, dataformats="HWC")
        self._board.flush()


def _lines_up_to(path: epath.Path, step: int) -> str:
    """The complete records of steps up to `step`; a torn last line is dropped."""
    lines = []
    if not path.exists():
        return ""
    for line in path.read_text().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                lines.append(line)
        except json.JSONDecodeError:
            continue
    return "".join(lines)
