import pickle

import pytest

from movq_jax.pretrained.refusals import Refused
from movq_jax.pretrained.torch_pickles import Placeholder, unpickle


def lenient(opcodes):
    return unpickle(b"\x80\x02" + opcodes + b".", lenient=True)[0]


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cx.y\nZ\n(I1\ntR",  # called
        b"cx.y\nZ\n)\x81",  # made by __new__
        b"cx.y\nZ\n)}\x92",  # with names, of protocol 4
        b"(I1\nix.y\nZ\n",
        b"cx.y\nZ\n)R}S'a'\nI1\nsb",  # its state
        b"cx.y\nZ\n)RN}S'__class__'\nI1\ns\x86b",
        b"cx.y\nZ\n)R(I1\nI2\ne",  # elements, of a list
        b"cx.y\nZ\n)RI1\na",
        b"cx.y\nZ\n)R(S'a'\nI2\nu",  # items, of a dict
        b"cx.y\nZ\n)R(I1\nI2\n\x90",  # of a set
        b"cx.y\nZ\n)R)R)R",  # what it gives, called again
    ],
)
def test_placeholders_swallow_everything(opcodes):
    found = lenient(opcodes)
    assert isinstance(found, Placeholder) and found.asked == "x.y.Z"
    assert not hasattr(found, "__dict__")
    assert hash(found) is not None


def test_a_class_stays_a_class():
    found = lenient(b"cx.y\nZ\n")
    assert issubclass(found, Placeholder) and found.asked == "x.y.Z"
    both = lenient(b"cx.y\nZ\ncx.y\nZ\n\x86")
    assert both[0] is both[1]


@pytest.mark.parametrize("state", [b"}S'asked'\nI1\ns", b"N}S'asked'\nI1\ns\x86"])
def test_classes_keep_nothing(state):
    assert lenient(b"cx\nZ\n" + state + b"b").asked == "x.Z"
    assert lenient(b"cx\nZ\n)\x81" + state + b"b").asked == "x.Z"
    assert Placeholder.asked == ""


HARMLESS = (
    "__builtin__.set builtins.dict builtins.type collections.defaultdict torch.load"
)
DANGEROUS = (
    "os.system posix.system nt.system subprocess.Popen builtins.eval builtins.exec "
    "builtins.getattr builtins.__import__ builtins.open __builtin__.apply sys.exit "
    "importlib.import_module importlib.util.find_spec shutil.rmtree socket.socket "
    "runpy.run_path pty.spawn ctypes.CDLL os.path.join webbrowser.open io.open"
)


@pytest.mark.parametrize("asked", HARMLESS.split())
def test_harmless(asked):
    module, _, name = asked.rpartition(".")
    assert lenient(f"c{module}\n{name}\n".encode()).asked == asked


@pytest.mark.parametrize("asked", DANGEROUS.split())
def test_dangerous(asked):
    module, _, name = asked.rpartition(".")
    with pytest.raises(Refused, match=asked.replace(".", r"\.")):
        lenient(f"c{module}\n{name}\n".encode())


@pytest.mark.parametrize("name", ["os.system", "x.subprocess.Popen"])
def test_dangerous_through_another(name):
    with pytest.raises(Refused, match="do not use this file"):
        lenient(
            pickle.UNICODE + b"pathlib\n" + pickle.UNICODE + name.encode() + b"\n\x93"
        )


def test_too_many_classes():
    with pytest.raises(ValueError, match="too many classes"):
        lenient(b"".join(b"cx\nZ%d\n0" % i for i in range(10_001)) + b"N")


def test_modules_of_old_files():
    """Their classes have the source code beside them."""
    found = lenient(b"(S'module'\ncx\nNet\nS'net.py'\nS'class Net: ...'\ntQ)\x81")
    assert isinstance(found, Placeholder) and found.asked == "x.Net"


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("open('pwned', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert lenient(b"cevil\nrun\n)R").asked == "evil.run"
    assert not (tmp_path / "pwned").exists()


def test_storages_are_told():
    pid = b"(S'storage'\nctorch\nFloatStorage\nS'7'\nS'cpu'\nI3\ntQ"
    found, storages = unpickle(b"\x80\x02" + pid + b".")
    assert storages == {"7": found} and found.count == 3
