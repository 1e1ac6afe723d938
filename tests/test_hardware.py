"""Which precision a machine is fast in, and that a configuration may leave it to the machine."""

import pytest
import torch

from revela.hardware import fast_precision
from revela.study.base import ConfigError, validate
from revela.study.settings import Training


@pytest.mark.parametrize("units, fast", [((), "fp32"), (("avx512_bf16",), "fp32"), (("amx_bf16",), "bf16")])
def test_fast_precision_is_that_of_the_units(monkeypatch, units, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True} | dict.fromkeys(units, True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fast_precision("cpu") == fast_precision() == fast


@pytest.mark.parametrize("units, fast", [(True, "bf16"), (False, "fp32")])
def test_fast_precision_of_a_gpu(monkeypatch, units, fast):
    """An older one only imitates bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units or including_emulation)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert fast_precision("cuda:1") == fast_precision() == fast


@pytest.mark.parametrize("fast", ["bf16", "fp32"])
def test_a_configuration_may_leave_the_precision_to_the_machine(monkeypatch, fast):
    """What the machine decides is what specifications say, so that a result names it."""
    monkeypatch.setattr("revela.study.settings.fast_precision", lambda: fast)
    settings = validate(Training, {"precision": "fast"}, "config")
    assert settings.precision == settings.model_dump(mode="json")["precision"] == fast


def test_only_what_is_valid_is_a_precision():
    with pytest.raises(ConfigError, match="^config: precision: valid: bf16, fp32, fast, got 'fp16'$"):
        validate(Training, {"precision": "fp16"}, "config")
