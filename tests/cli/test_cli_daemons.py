from __future__ import annotations

from pathlib import Path

import pytest

from opencluster.cli.daemons import describe
from opencluster.errors import ConfigError


def test_a_module_that_ends_without_a_word(tmp_path: Path) -> None:
    module = tmp_path / "silent.py"
    module.write_text("import os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(ConfigError, match="imported it ended with status -9"):
        describe(f"{module}:Worker")
