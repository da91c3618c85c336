"""What a user is told."""

from diffgen.errors import one_line


def test_an_error_is_told_in_one_line() -> None:
    assert one_line(ValueError("a\n  b ")) == "a b"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
