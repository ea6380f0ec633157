"""Failed asserts of the shared test code show their values, too."""

import pytest

pytest.register_assert_rewrite("contract", "executor")
