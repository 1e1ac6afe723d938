"""The models of a run and DeepSpeed around them: precision, adapters, optimizer, schedule, ZeRO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.lr_schedules import WarmupDecayLR
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from revela.method.adapters import slim
from revela.pretrained import load_model, load_tokenizer
from revela.retriever import Retriever, add_lora
from revela.training.compilation import compile_layers

if TYPE_CHECKING:
    from peft import PeftModel

    from revela.objectives.base import Objective
    from revela.study.settings import Training

    LanguageModel = PreTrainedModel | PeftModel


def set_arithmetic() -> None:
    """Has a CPU flush subnormal floats to zero. To be called before the first computation of the process.

    The setting is one of this thread, and of all threads that it starts from then on.
    Sim at tau = 1e-4 makes subnormals, and a CPU takes twice as long over them.
    """
    torch.set_flush_denormal(True)


def load_models(
    settings: Training, retriever: Path, lm: Path | None
) -> tuple[Retriever, LanguageModel | None, PreTrainedTokenizerBase | None]:
    """The retriever, the language model and its tokenizer; the last two are None where no language model is given.

    Frozen weights are in the precision of the run, trained ones in float32. Adapters are drawn by the seed.
    """
    torch.manual_seed(settings.seed)
    frozen = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    embedder = Retriever.from_backbone(
        retriever,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        max_length=settings.retriever_max_length,
        lora=settings.lora,
        dtype=frozen if settings.lora else torch.float32,
    )
    # ZeRO-3 gathers the weights of a module when it is called, and slim adapters call none of theirs.
    slimming = (settings.lora or settings.freeze_lm) and settings.zero_stage < 3 and not settings.compile
    if slimming and settings.lora:
        slim(embedder)
    if settings.compile:
        compile_layers(embedder.backbone)
    if lm is None:
        return embedder, None, None
    model = load_model(AutoModelForCausalLM, lm, frozen if settings.lora or settings.freeze_lm else torch.float32)
    if settings.freeze_lm:
        model.requires_grad_(False)
    elif settings.lora:
        model = add_lora(model, settings.lora, "CAUSAL_LM")
    if slimming:
        slim(model)
    if settings.compile:
        compile_layers(model)
    return embedder, model, load_tokenizer(lm)


def build_engine(objective: Objective, settings: Training, steps: int) -> deepspeed.DeepSpeedEngine:
    """The objective under DeepSpeed: AdamW over what is trainable, warm-up and linear decay, clipping, ZeRO."""
    trainable = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    bucket = min(5 * 10**7, sum(parameter.numel() for parameter in trainable))
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": settings.batches_per_step
        * settings.processes_per_batch
        // dist.get_world_size(),
        "gradient_clipping": settings.max_grad_norm,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "zero_allow_untested_optimizer": True,
        # Without the list, gradients and new weights of linear layers would travel in bfloat16.
        "torch_autocast": {
            "enabled": settings.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "data_types": {"grad_accum_dtype": "fp32"},
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU twice in each batch
    }
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)

    def schedule(optimizer):
        scheduler = WarmupDecayLR(
            optimizer,
            total_num_steps=steps,
            warmup_max_lr=settings.learning_rate,
            warmup_num_steps=max(1, settings.warmup_steps),
            warmup_type=settings.warmup,
            last_batch_iteration=0,
        )
        scheduler.step(0)
        return scheduler

    engine, *_ = deepspeed.initialize(
        model=objective, optimizer=optimizer, model_parameters=trainable, lr_scheduler=schedule, config=config
    )
    if settings.zero_stage == 0:  # where DeepSpeed clips, but does not tell the norm

        def clip() -> None:
            engine._global_grad_norm = nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm)

        engine.clip_fp32_gradients = clip
    engine.train()
    return engine
