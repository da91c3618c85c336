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
