"""The marker of the tests that kill a training again and again: `make test-faults`."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: minutes of killing a training (`make test-faults`)")
