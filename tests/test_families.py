import pytest

from movq_jax import families
from movq_jax.errors import UserError


class Crop:
    def __init__(self, size, at="center"):
        self.size, self.at = size, at


def no_crop():
    return None


CROPS = {"crop": Crop, "none": no_crop}


def make(fields, *args, **extra):
    return families.make(CROPS, fields, "config.data.crop", *args, **extra)


def test_fields_become_an_object():
    fields = {"name": "crop", "size": 64, "at": "random"}
    crop = make(fields)
    assert (type(crop), crop.size, crop.at) == (Crop, 64, "random")
    assert fields == {"name": "crop", "size": 64, "at": "random"}
    assert make({"name": "crop", "size": 64}).at == "center"
    assert make({"name": "none"}) is None


def test_arguments_of_the_caller_are_added():
    crop = make({"name": "crop"}, 64, at="random")
    assert (crop.size, crop.at) == (64, "random")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "corp", "size": 64},
            "config.data.crop.name is 'corp'; did you mean 'crop'? Known: crop, none",
        ),
        ({"name": 3}, "config.data.crop.name is 3; Known: crop, none"),
        ({"size": 64}, "config.data.crop.name is None"),
        (None, "config.data.crop is None; choose by {'name': ...}; Known: crop, none"),
        ("crop", "config.data.crop is 'crop'; choose by"),
        ([1], "config.data.crop is [1]; choose by"),
        (
            {"name": "crop", "sise": 64},
            "config.data.crop (crop) has no field 'sise'; did you mean 'size'? "
            "Known: at, size",
        ),
        (
            {"name": "none", "size": 64},
            "config.data.crop (none) has no field 'size'; there is none",
        ),
        (
            {"name": "crop"},
            "config.data.crop (crop) lacks 'size'",
        ),
    ],
)
def test_errors(fields, message):
    with pytest.raises(UserError) as error:
        make(fields)
    assert str(error.value).startswith(message)


def test_what_is_given_by_position_is_no_field():
    def part(whole, depth):
        return whole, depth

    family = {"part": part, "all": lambda whole: whole}
    assert families.make(family, {"name": "part", "depth": 3}, "c", 1) == (1, 3)
    with pytest.raises(
        UserError, match=r"c \(all\) has no field 'depth'; there is none"
    ):
        families.make(family, {"name": "all", "depth": 3}, "c", 1)


def test_what_the_caller_gives_is_no_field():
    with pytest.raises(UserError, match=r"\(crop\) has no field 'at'"):
        make({"name": "crop", "size": 1, "at": "center"}, at="random")


def test_an_error_of_the_member_itself_is_not_hidden():
    def broken(size):
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        families.make({"broken": broken}, {"name": "broken", "size": 1}, "config")


def test_the_field_is_given_twice_by_position():
    with pytest.raises(UserError, match="has no field 'size'; Known: at"):
        make({"name": "crop", "size": 1}, 64)


def test_the_closest():
    assert families.closest("corp", {"crop": 1, "none": 2}) == "crop"
    assert families.closest("zebra", ["crop"]) is None
    assert families.closest(3, []) is None
