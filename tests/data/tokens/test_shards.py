"""Token caches that come into being: killed, by several processes, on a full disk."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from movq_jax.data.tokens import shards as token_shards
from movq_jax.data.tokens.plan import Plan
from movq_jax.errors import UserError

PLAN = Plan(
    fingerprint="a" * 64,
    codebook_sizes=(40,),
    channel_books=("codebook",),
    factor=4,
    image_size=8,
    preprocessing={"resize": {"name": "squash"}, "image_size": 8},
    flip=True,
    micro_batch=1,
    dataset="small/1.0.0",
    dataset_fingerprint="c" * 64,
    split="train",
    num_examples=7,
    num_shards=3,
    classes=(),
)


def records(plan, shard):
    for number in range(*plan.bounds(shard)):
        yield plan.pack(-1, np.full((2, 2, 2, 1), number, np.int32))


def fill(folder, plan=PLAN, process=(0, 1)):
    """Write what is missing of one process's part, and the manifest if that is all."""
    for shard in token_shards.begin(folder, plan):
        if shard % process[1] == process[0]:
            token_shards.write_shard(folder, plan, shard, records(plan, shard))
    return token_shards.complete(folder, plan)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "tokens"


@pytest.fixture
def clean(tmp_path):
    """The files of a cache that was written without interruption."""
    fill(tmp_path / "clean")
    return contents(tmp_path / "clean")


def test_every_example_is_in_one_shard():
    for count, shards in [(7, 3), (7, 7), (1, 1), (100, 9)]:
        plan = dataclasses.replace(PLAN, num_examples=count, num_shards=shards)
        bounds = [plan.bounds(shard) for shard in range(shards)]
        assert [n for b in bounds for n in range(*b)] == list(range(count))
        assert all(start < stop for start, stop in bounds)


def test_a_second_time_changes_nothing(folder, clean):
    assert fill(folder) == fill(folder)
    assert contents(folder) == clean


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (3, 2, 0, 1)])
def test_several_processes_write_one_cache(folder, clean, order):
    """The fourth of them has no shard; who comes last writes the manifest."""
    done = [fill(folder, process=(index, 4)) is not None for index in order]
    assert done == [False, False, False, True]
    assert contents(folder) == clean


def test_processes_that_begin_together(folder, clean):
    """All have seen an empty folder before one of them writes."""
    missing = [token_shards.begin(folder, PLAN) for _ in range(3)]
    assert missing == [[0, 1, 2]] * 3
    for shard in (0, 1, 2, 1):  # and one is written twice
        token_shards.write_shard(folder, PLAN, shard, records(PLAN, shard))
    for _ in range(3):
        token_shards.complete(folder, PLAN)
    assert contents(folder) == clean


def test_a_rerun_writes_the_manifest(folder, clean):
    fill(folder)
    (folder / "manifest.json").unlink()
    assert token_shards.begin(folder, PLAN) == []
    fill(folder, process=(3, 4))
    assert contents(folder) == clean


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "b" * 64}, f"its model's fingerprint is {'a' * 64}, not bbb"),
        ({"dataset": "other/1.0.0"}, "its 'dataset' is small/1.0.0, not other/1.0.0"),
        ({"dataset_fingerprint": None}, "its 'dataset_fingerprint' is ccc.*, not null"),
        ({"split": "validation"}, "its 'split' is train, not validation"),
        ({"preprocessing": {}}, "its 'preprocessing' is .*squash.*, not {}"),
        ({"image_size": 16}, "its 'image_size' is 8, not 16"),
        ({"flip": False}, "its 'flip' is true, not false"),
        ({"micro_batch": 8}, "its 'micro_batch' is 1, not 8"),
        ({"num_shards": 2}, "its 'num_shards' is 3, not 2"),
    ],
)
@pytest.mark.parametrize("missing", ["nothing", "manifest.json", "plan.json"])
def test_another_cache_is_refused(folder, changes, message, missing):
    fill(folder)
    (folder / missing).unlink(missing_ok=True)
    before = contents(folder)
    with pytest.raises(
        UserError, match=f"holds another token cache: {message}"
    ) as error:
        fill(folder, dataclasses.replace(PLAN, **changes))
    assert str(error.value).endswith("choose another --out, or delete that folder")
    assert contents(folder) == before


def test_shards_of_another_plan_do_not_count(folder, clean):
    """Where somebody deleted what says which cache it is."""
    other = dataclasses.replace(PLAN, fingerprint="b" * 64)
    fill(folder, other)
    for name in ("plan.json", "manifest.json"):
        (folder / name).unlink()
    assert token_shards.begin(folder, PLAN) == [0, 1, 2]
    fill(folder)
    assert contents(folder) == clean


def test_other_files_are_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / ".hidden").write_text("")
    (folder / "letter.txt").write_text("")
    with pytest.raises(UserError, match="holds letter.txt and no token cache"):
        fill(folder)
    assert set(contents(folder)) == {".hidden", "letter.txt"}
    with pytest.raises(UserError, match="letter.txt is a file: name a folder"):
        fill(folder / "letter.txt")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"plan": 1}', "\xff"])
def test_a_shard_without_its_word_is_made_anew(folder, clean, text):
    fill(folder)
    path = folder / f"{PLAN.shard_file(2)}.json"
    path.write_text(text)
    assert token_shards.missing_shards(folder, PLAN) == [2]
    fill(folder)
    assert contents(folder) == clean


def test_a_shard_whose_records_cannot_be_counted_is_made_anew(folder, clean):
    """The footer of a file, as it is after a block of the disk was lost."""
    fill(folder)
    path = folder / PLAN.shard_file(1)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert token_shards.missing_shards(folder, PLAN) == [1]
    fill(folder)
    assert contents(folder) == clean


def test_a_damaged_plan_is_refused(folder):
    fill(folder)
    (folder / "plan.json").write_text("{")
    with pytest.raises(UserError, match="plan.json is damaged .*; delete it and run"):
        fill(folder)
    (folder / "plan.json").unlink()
    assert fill(folder) is not None


def test_an_error_while_records_are_made_leaves_no_shard(folder, clean):
    def broken():
        yield next(records(PLAN, 0))
        raise RuntimeError("the device is on fire")

    token_shards.begin(folder, PLAN)
    with pytest.raises(RuntimeError, match="on fire"):
        token_shards.write_shard(folder, PLAN, 0, broken())
    assert set(contents(folder)) == {"plan.json"}
    fill(folder)
    assert contents(folder) == clean


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_shards as cases
from movq_jax.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    cases.fill(Path(sys.argv[1]))
except UserError as error:
    print(error)
"""

# A process of its own: it forks, which one with jax in it must not.
KILLED = """
import itertools, os, shutil, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_shards as cases
from movq_jax.data.tokens.cache import TokenCache
from movq_jax.errors import UserError

folder, clean = Path(sys.argv[1]), cases.contents(Path(sys.argv[2]))
os.fsync = lambda file: None  # it takes the most time, and no disk fails here
EVENTS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove")


def in_a_process(function, *args):
    pid = os.fork()
    if not pid:
        try:
            function(*args)
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fill_until(event):
    '''Die at once before the event with this number that changes the folder.'''
    left = [event]

    def hook(name, args):
        changes = name in EVENTS and os.fspath(folder) in str(args[0])
        if changes and (name != "open" or (args[2] or 0) & os.O_WRONLY):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

    sys.addaudithook(hook)
    cases.fill(folder)


def check_and_fill():
    if not (folder / "manifest.json").exists():
        try:
            TokenCache.open(folder)
        except UserError:
            pass
        else:
            raise AssertionError("half a cache was read")
    cases.fill(folder)
    assert cases.contents(folder) == clean, sorted(cases.contents(folder))


for event in itertools.count():
    shutil.rmtree(folder, ignore_errors=True)
    code = in_a_process(fill_until, event)
    if code == 0:
        break
    assert code == 9, code
    assert in_a_process(check_and_fill) == 0, event
print(event)
"""


def run_script(script, *args):
    source = script.format(tests=str(Path(__file__).parent))
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_killed_anywhere_and_run_again_gives_the_same_bytes(folder, clean, tmp_path):
    result = run_script(KILLED, folder, tmp_path / "clean")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 15  # events that it was killed before


def test_a_full_disk_is_an_error_and_leaves_no_shard(folder, clean):
    result = run_script(FULL_DISK, folder)
    assert result.returncode == 0, result.stderr
    assert "cannot write" in result.stdout and "File too large" in result.stdout
    assert set(contents(folder)) == {"plan.json"}
    fill(folder)
    assert contents(folder) == clean
