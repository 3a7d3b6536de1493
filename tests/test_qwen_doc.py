"""docs/qwen.md says what is true."""

import re
from pathlib import Path

import pytest
import yaml

from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "qwen.md").read_text(encoding="utf-8"), re.DOTALL)
SUMS = {"name": "sums", "samples": [{"question": "1 + 1"}], "prompts": {"plain": "{{ question }}"}}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.partition("\n")[0])
def test_every_block_is_part_of_a_config(tmp_path, block):
    """Filled up to a whole config, each block passes what `evalrunner check` checks."""
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "study", "prompt_sets": [SUMS]} | yaml.safe_load(block)))
    plan = make_plan(load_config(path, environ={"DASHSCOPE_API_KEY": "sk-1", "DASHSCOPE_INTL_API_KEY": "sk-2"}))
    plan.validate()
    assert plan.accounts
    assert plan.size > 0
    assert not [line for line in plan.warnings() if "no price is known for" not in line]  # the catalogue has none for some models of audio
