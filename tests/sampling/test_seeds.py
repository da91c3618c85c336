from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from diffgen.sampling.seeds import Purpose, generator

numbers = st.integers(0, 2**40)


@given(numbers, numbers, st.sampled_from(Purpose), st.integers(0, 1000))
def test_streams_repeat(seed: int, index: int, purpose: Purpose, step: int) -> None:
    first, again = (generator(seed, index, purpose, step).integers(2**62) for _ in range(2))
    assert first == again


def test_no_two_streams_are_the_same() -> None:
    """Promise 4: seed, image, purpose and step each make another stream."""
    keys = list(product(range(4), range(30), Purpose, range(4)))
    assert len({int(generator(*key).integers(2**62)) for key in keys}) == len(keys)


def test_large_numbers_are_not_read_as_two() -> None:
    """2³² takes two words where small numbers take one: seed 2³² must not be seed 0 of image 1."""
    assert generator(2**32, 5, Purpose.CONTEXT).integers(2**62) != generator(0, 1, Purpose(5)).integers(2**62)
    assert generator(0, 0, Purpose.CONTEXT).integers(2**62) != generator(
        0, 0, Purpose.CONTEXT, 0, 0, 0
    ).integers(2**62)
