"""``@pytest.mark.needs("avx512_bf16")``: the engine's kernels, and instruction sets of the processor."""

import pytest

from tests.conftest import require
from worker.engine import native, processor


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*instruction_sets): the engine's kernels, and these instruction sets, as /proc/cpuinfo says"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this processor cannot run; what it can run must run wherever services are demanded, as in CI."""
    markers = list(item.iter_markers("needs"))
    wanted = {name for marker in markers for name in marker.args}
    missing = sorted(wanted - processor.instruction_sets())
    if missing:
        pytest.skip(f"needs {', '.join(missing)}, which the processor ({processor.chosen()}) does not have")
    if markers:
        require(native.load() is not None, "the engine's kernels, so a C++ compiler,")
