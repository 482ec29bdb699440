import io

from movq_jax.training.console import Console, Stopwatch

VALUES = {"train/loss_rec": 0.25, "train/images_per_second": 80.0, "train/lr": 1.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_each_time():
    stream = io.StringIO()
    console = Console(100, stream=stream)
    console.show(10, VALUES, 0.5)
    console.show(20, VALUES, 0.5)
    assert stream.getvalue() == (
        "step 10/100 · loss_rec 0.2500 · 80.0 images/s · 45 s left\n"
        "step 20/100 · loss_rec 0.2500 · 80.0 images/s · 40 s left\n"
    )


def test_a_terminal_gets_one_line_that_is_renewed():
    stream = Terminal()
    console = Console(100, stream=stream)
    console.show(10, VALUES, 0.5)
    console.show(20, VALUES, 0.5)
    console.say("done")
    assert stream.getvalue().count("\n") == 2  # that line, and what was said
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().endswith("\ndone\n")


def test_an_error_ends_the_live_line():
    stream = Terminal()
    try:
        with Console(100, stream=stream) as console:
            console.show(10, VALUES, 0.5)
            raise RuntimeError
    except RuntimeError:
        assert stream.getvalue().endswith("left\x1b[K\n")


def test_without_a_pace_there_is_no_time_left():
    stream = io.StringIO()
    Console(100, stream=stream).show(10, {"train/loss_rec": 0.25}, None)
    assert stream.getvalue() == "step 10/100 · loss_rec 0.2500\n"


def test_all_processes_but_one_are_silent():
    stream = io.StringIO()
    console = Console(100, stream=stream, silent=True)
    console.say("a")
    console.show(10, VALUES, 0.5)
    console.report(10, VALUES)
    assert stream.getvalue() == ""


def test_a_pace_is_of_steps_alone():
    now = [0.0]

    def pass_by(seconds):
        now[0] += seconds

    watch = Stopwatch(clock=lambda: now[0])
    assert watch.read() is None
    for _ in range(2):
        with watch.waiting():
            pass_by(1.0)
        pass_by(3.0)
        watch.count()
        with watch.paused():
            pass_by(100.0)
    assert watch.read() == (4.0, 0.25)
    pass_by(50.0)
    watch.count()
    watch.restart()
    pass_by(2.0)
    watch.count()
    assert watch.read() == (2.0, 0.0)
