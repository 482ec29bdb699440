from movq_jax.evaluation.lettering import cut_end, cut_middle, text_width, writable


def test_letters_that_the_font_has_not_are_replaced():
    assert writable("photo é, Größe 東.png") == "photo e, Grosse ?.png"
    assert writable("a-Z_0.9 (1)") == "a-Z_0.9 (1)"


def test_what_fits_stays():
    width = text_width("a short name", 15)
    assert cut_end("a short name", 15, width) == "a short name"
    assert cut_middle("a short name", 15, width) == "a short name"


def test_what_is_too_long_is_cut():
    name = "a long name of a file that has no room.png"
    for width in (200, 80, 40):
        end, middle = cut_end(name, 15, width), cut_middle(name, 15, width)
        assert end.endswith("...") and name.startswith(end[:-3])
        first, last = middle.split("...")
        assert name.startswith(first) and name.endswith(last)
        assert max(text_width(end, 15), text_width(middle, 15)) <= width
    assert cut_end(name, 15, 1) == cut_middle(name, 15, 1) == ""
