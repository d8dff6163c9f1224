"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Machines are shared: a slow example is not a failure. CI draws the same examples every time.
settings.register_profile("shared", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    """Of two test processes on two cores each takes one core: torch would start threads for both."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch

        torch.set_num_threads(1)


class GroupScheduling(LoadScopeScheduling):
    """What shares expensive fixtures runs in one process: a file, all of end_to_end, a target of some files."""

    by_target = ("tests/wall/", "tests/schedules/test_every_form.py")

    def _split_scope(self, nodeid: str) -> str:
        path, _, name = nodeid.partition("::")
        if "/end_to_end/" in path:
            return "end_to_end"
        match = re.search(r"\[(?P<target>[a-z0-9-]+?)(-\d+)?\]$", name) if path.startswith(self.by_target) else None
        return path + (match["target"] if match else "")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> GroupScheduling:
    return GroupScheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected dumps with what the passes give now")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real models and data; tests that need it are skipped where QC_DATA is not set."""
    folder = os.environ.get("QC_DATA")
    if not folder:
        pytest.skip("QC_DATA is not set: the real models and data are not on this machine")
    return Path(folder).resolve()
