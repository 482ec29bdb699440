import io

import pytest

from movq_jax.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_quick_job_is_silent():
    stream = io.StringIO()
    with Progress(3, "images", stream=stream, clock=Clock()) as progress:
        for _ in range(3):
            progress.advance()
    assert stream.getvalue() == ""


def test_a_log_gets_a_line_in_ten_seconds():
    stream, clock = io.StringIO(), Clock()
    with Progress(100, "images", stream=stream, clock=clock) as progress:
        for _ in range(100):
            clock.now += 0.5
            progress.advance()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0] == "20/100 images, 2 a second, 40 s left"


def test_a_terminal_keeps_one_line_and_notes_get_their_own():
    stream, clock = Terminal(), Clock()
    with Progress(4, "images", stream=stream, clock=clock) as progress:
        clock.now = 1
        progress.advance()
        progress.note("refused: a.txt")
        clock.now = 2
        progress.advance()
    first, note, second, end = stream.getvalue().split("\n")
    assert first.startswith("\r1/4 images") and second.startswith("\r2/4 images")
    assert (note, end) == ("refused: a.txt", "")


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s")]
    + [(7620.0, "2 h 07 min"), (float("inf"), "unknown time")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
