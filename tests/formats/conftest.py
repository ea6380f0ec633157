"""Failed asserts of the shared test code show their values, too."""

from collections.abc import Iterator

import pytest
from measured import Measurer

pytest.register_assert_rewrite("contract", "executor")


@pytest.fixture(scope="module")
def measurer() -> Iterator[Measurer]:
    """Opens checkpoints in processes of their own and tells what that cost."""
    running = Measurer()
    yield running
    running.close()
