"""A step of training a real backbone on a CPU: how much of its time goes into matrix products.

    python benchmarks/cpu_step.py [--quick] [--threads N] [--precision fp32]

SmolLM2-135M's shape as retriever, with adapters of r=32, and as frozen language model behind a gate of 0.1; 16 chunks of
about 24 words. Forward, backward and AdamW under DeepSpeed, as `revela train` takes its steps. Weights and tokens are
random. The step's operations are counted by `revela.plan.flops`. They are put beside the rate at which torch multiplies
matrices of these shapes on as many threads, in the same process: weighted by how much of the step each shape is. What
was stored of other processors, precisions and numbers of threads is kept.
"""

import argparse
import os
import time

import torch
import torch.distributed as dist
from record import machine, merged, save, settle, show
from training_step import QUICK, SMOLLM, Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from revela.method.adapters import slim
from revela.objectives.revela import Revela
from revela.plan import flops
from revela.retriever import Retriever, add_lora
from revela.study.cross_attention import CrossAttention
from revela.study.settings import Lora, Training
from revela.training import launch
from revela.training.engine import build_engine, set_arithmetic
from revela.training.entry import join_processes

BATCH = 16
SHAPE = SMOLLM | {"num_hidden_layers": 30}
LM, PREFIX = (24, 45), 4  # tokens of a chunk, from and to; of a prefix with EOS


def make(shape: dict, precision: str) -> Revela:
    """The objective on two models with random weights: frozen weights in the precision, adapters in float32."""
    torch.manual_seed(0)
    settings = Training(
        lora=Lora(rank=32, alpha=32, dropout=0.0),
        freeze_lm=True,
        temperature=0.05,
        cross_attention=CrossAttention(gate=0.1),
        precision=precision,
        zero_stage=0,
        batches_per_step=1,
    )
    config = LlamaConfig(**shape, max_position_embeddings=2048)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    backbone, lm = LlamaModel(config).to(dtype), LlamaForCausalLM(config).to(dtype)
    backbone = add_lora(backbone, settings.lora, "FEATURE_EXTRACTION")
    slim(backbone)
    slim(lm.requires_grad_(False))
    retriever = Retriever(backbone, Tokenizer(), max_length=157)
    return Revela(settings, retriever, lm, Tokenizer())


def make_batch(vocabulary: int) -> dict[str, torch.Tensor]:
    """What `Revela.collate` would make of a row."""
    generator = torch.Generator().manual_seed(0)
    lm = torch.randint(*LM, (BATCH,), generator=generator)
    batch = {}
    for part, of in {"lm": lm, "passage": lm + PREFIX, "query": lm + PREFIX}.items():
        mask = torch.arange(int(of.max())) < of[:, None]
        batch[f"{part}_input_ids"] = torch.randint(3, vocabulary, mask.shape, generator=generator) * mask
        batch[f"{part}_attention_mask"] = mask.long()
    batch["lm_labels"] = batch["lm_input_ids"].masked_fill(batch["lm_attention_mask"] == 0, -100)
    return batch


def step(engine, batch: dict) -> float:
    """As `revela.training.loop.train` takes it; the mean loss."""
    loss, _ = engine(batch)
    count = engine.module.count(batch)
    engine.backward(loss / count, scale_wrt_gas=False)
    engine.step()
    return loss.item() / count


def product_rate(objective: Revela, lengths: dict, precision: str) -> float:
    """Operations a second of the matrix products of a step, forward and backward, each measured on its own."""
    lm = flops.Shape.from_config(objective.lm.config.to_dict())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    operations = seconds = 0.0
    products = [
        (rows, *size, lm.layers * passes)
        for rows, passes in ((sum(lengths["query"] + lengths["passage"]), 2), (sum(lengths["lm"]), 3))
        for size in lm.matrices.values()
    ]
    products.append((sum(lengths["lm"]) - BATCH, lm.hidden, lm.vocabulary, 2))
    for rows, inner, columns, times in products:
        left, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        torch.mm(left, weight.T)
        spans = []
        for _ in range(9):
            started = time.perf_counter()
            torch.mm(left, weight.T)
            spans.append(time.perf_counter() - started)
        seconds += times * sorted(spans)[4]
        operations += times * 2 * rows * inner * columns
    return operations / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model; nothing is stored")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--steps", type=int, default=5, help="of which the median counts (default: 5)")
    parser.add_argument("--profile", action="store_true", help="print where the time of a step goes")
    options = parser.parse_args()
    set_arithmetic()
    torch.set_num_threads(options.threads)
    launch.configure_malloc(BATCH)
    join_processes()
    shape = QUICK if options.quick else SHAPE
    rows = []
    for precision in options.precision:
        objective, batch = make(shape, precision), make_batch(shape["vocab_size"])
        engine = build_engine(objective, objective.settings, steps=1000)
        step(engine, batch)
        spans, losses = [], []
        for _ in range(options.steps):
            wall, cpu = time.perf_counter(), time.process_time()
            losses.append(step(engine, batch))
            spans.append((time.perf_counter() - wall, time.process_time() - cpu))
        seconds, cpu_seconds = sorted(spans)[len(spans) // 2]
        lengths = {part: batch[f"{part}_attention_mask"].sum(1).tolist() for part in ("query", "passage", "lm")}
        lm = flops.Shape.from_config(objective.lm.config.to_dict())
        operations = flops.revela(objective.settings, lm, lm, lengths, attended=BATCH - 1)
        rate = product_rate(objective, lengths, precision)
        rows.append(
            {
                "cpu": machine()["cpu"],
                "threads": options.threads,
                "precision": precision,
                "seconds": round(seconds, 3),
                "cpu_seconds": round(cpu_seconds, 3),
                "operations": operations,
                "gflops": round(operations / seconds / 1e9, 1),
                "product_gflops": round(rate / 1e9, 1),
                "share": round(operations / seconds / rate, 3),
                "loss": round(losses[-1], 5),
            }
        )
        print(rows[-1], flush=True)
        if options.profile:
            with torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
            ) as profile:
                step(engine, batch)
            print(
                profile.key_averages(group_by_input_shape=True).table(
                    sort_by="self_cpu_time_total", row_limit=70, max_name_column_width=48, max_shapes_column_width=90
                )
            )
    dist.destroy_process_group()
    show(rows)
    settings = {"shape": shape, "batch": BATCH, "tokens": {part: sum(of) for part, of in lengths.items()}}
    if not options.profile and not options.quick:
        rows = merged("cpu_step", rows, "cpu", "threads", "precision")
        save("cpu_step", settings | {"lora_rank": 32}, rows)


if __name__ == "__main__":
    settle()
    main()
