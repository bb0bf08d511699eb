"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

Hook = Generator[None, pytest.TestReport, pytest.TestReport]

# Set by .ci/run: there a test that cannot run is a fault, not an omission.
NO_SKIP = "SMECONF_TESTS_NO_SKIP"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Hook:
    """Turn a skipped test into a failed one where skipping is forbidden."""
    report = yield
    if report.skipped and os.environ.get(NO_SKIP):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is forbidden here: {report.longrepr}"
    return report
