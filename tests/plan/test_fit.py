"""What is decided about a run by its estimate and the room that it has."""

from dataclasses import replace

import pytest

from revela.plan.available import Room
from revela.plan.fit import SURE, DoesNotFit, Load, fit
from revela.plan.flops import Shape
from revela.study.settings import Lora, Training

SMOLLM2 = Shape(30, 576, 1536, 9, 3, 64, 49152)
NAME = "revela/mine/smollm2/smollm2/bs16"
SETTINGS = Training(lora=Lora(), precision="fp32", zero_stage=0)
LOAD = Load(SETTINGS, [SMOLLM2, SMOLLM2], 16, 1, gpu=False, least_batch=3)
PLAIN, SPARED = LOAD.need(checkpointing=False), LOAD.need(checkpointing=True)


def decide(room, wanted=None, load=LOAD):
    return fit(load, Room(room, "by a test"), wanted, NAME)


def test_smollm2_on_the_defaults():
    """A machine of 24 GB holds it, and one of 8 GB does with gradient checkpointing."""
    assert 13 * 2**30 < SURE * PLAIN < 18 * 2**30 and 4 * 2**30 < SPARED < 6 * 2**30


def test_a_run_that_fits_goes_on_as_it_is():
    assert not decide(SURE * PLAIN).checkpointing and decide(0.99 * SURE * PLAIN).checkpointing
    assert "gradient checkpointing is off" in decide(SURE * PLAIN).line


def test_checkpointing_where_it_makes_a_run_fit():
    found = decide(SPARED)
    assert found.checkpointing and "gradient checkpointing is on" in found.line and "\n" not in found.line
    assert f"{PLAIN / 2**30:.1f} GiB by estimate, and there are {SPARED / 2**30:.1f} GiB (by a test)" in found.line


def test_a_run_that_does_not_fit_is_refused_with_what_would():
    with pytest.raises(DoesNotFit) as error:
        decide(0.99 * SPARED)
    said = str(error.value)
    assert said.startswith(f"{NAME}: training needs {PLAIN / 2**30:.1f} GiB") and "\n" not in said
    assert "all that and batch size 8 (" in said and "gradient_checkpointing: true (" not in said
    assert "compute.gradient_checkpointing" in said
    with pytest.raises(DoesNotFit, match="none of "):
        decide(2**29)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_wanted_is_done(wanted):
    assert decide(PLAIN, wanted).checkpointing is wanted and "hardly" not in decide(PLAIN, wanted).line
    assert decide(2**29, wanted).checkpointing is wanted and "hardly" in decide(2**29, wanted).line


def test_short_chunks_need_less():
    short = Load(SETTINGS, [SMOLLM2, SMOLLM2], 16, 1, gpu=False, least_batch=3, tokens=(1200, 550))
    assert not decide(PLAIN / 2, load=short).checkpointing
    assert short.need(checkpointing=False) < 0.5 * PLAIN


def test_what_would_fit_is_estimated():
    with pytest.raises(DoesNotFit) as error:
        decide(0.7 * SPARED)
    assert "training.lora.rank 32 (" in str(error.value) and "training.retriever_max_length 78 and" not in str(
        error.value
    )
    needs = LOAD.smaller()
    assert list(needs) == [
        "training.retriever_max_length 78 and lm_max_length 78", "training.freeze_lm true", "training.lora.rank 32"
    ]  # fmt: skip
    assert all(need < SPARED for need in needs.values())
    low = SETTINGS.model_copy(update={"lora": Lora(rank=32)})
    assert needs["training.lora.rank 32"] == replace(LOAD, settings=low).need(checkpointing=True)


def test_processes_that_could_share_a_batch_are_advised_to():
    def advised(processes, batch_size, shared=1):
        settings = SETTINGS.model_copy(update={"processes_per_batch": shared})
        load = replace(LOAD, processes=processes, batch_size=batch_size, settings=settings)
        needs = load.smaller()
        assert all(need < load.need(checkpointing=True) for name, need in needs.items() if "per_batch" in name)
        return [name for name in needs if "per_batch" in name]

    assert advised(1, 16) == advised(4, 16, shared=4) == advised(4, 5) == []
    assert advised(4, 16) == ["training.processes_per_batch 4"]
    assert advised(4, 6) == advised(6, 4) == ["training.processes_per_batch 2"]
