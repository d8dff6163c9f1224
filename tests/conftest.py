"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are shared: a slow example is not a failure. CI draws the same examples every time.
settings.register_profile("shared", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    """Of two test processes on two cores each takes one core: torch would start threads for both."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch

        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares expensive fixtures runs in one process: a file, all of end_to_end, a target of the random graphs."""
    for item in items:
        folder = item.path.parent.name
        group = folder if folder == "end_to_end" else str(item.path)
        if folder == "wall" and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            group += str(item.callspec.params.get("target", ""))
        item.add_marker(pytest.mark.xdist_group(group))


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
