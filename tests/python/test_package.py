from __future__ import annotations

import subprocess
import sys

import pytest

import genie_cpp
from genie_cpp import _build_info


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, genie_cpp; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_another_torch_is_an_import_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build_info, "TORCH_VERSION", "1.13.0+cpu")
    with pytest.raises(ImportError, match=r"compiled against torch 1\.13\.0.*install torch==1\.13\.0$"):
        genie_cpp._check_torch()


def test_errors_are_value_errors() -> None:
    assert issubclass(genie_cpp.GenieError, ValueError)
    assert genie_cpp.GenieError is genie_cpp.errors.GenieError


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'modles'"):
        genie_cpp.modles  # noqa: B018
