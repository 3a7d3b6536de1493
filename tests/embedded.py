"""The embedded model's weights, for the tests that run it; they are skipped, with the reason, where it cannot be had."""

from pathlib import Path

import pytest

from evalrunner.errors import UnreachableError
from evalrunner.serving.local_model import SMOLLM2, weights_file


async def embedded_weights() -> Path:
    pytest.importorskip("xllamacpp", reason="the extra [local] is not installed")
    try:
        return await weights_file(SMOLLM2, lambda _line: None)
    except UnreachableError as error:
        pytest.skip(str(error))
