"""Failed asserts of the shared test code show their values, too; what measures a checkpoint's cost starts once."""

from collections.abc import Iterator

import pytest
from measured import Measurer

pytest.register_assert_rewrite("contract", "executor", "hostile")


@pytest.fixture(scope="session")
def measurer() -> Iterator[Measurer]:
    running = Measurer()
    yield running
    running.close()
