"""A micro-step of Revela, forward and backward, against the straightforward implementation (`rivals.py`).

    python benchmarks/training_step.py [--quick]          SmolLM2-135M's shape with 6 layers, float32, 1 CPU thread
    python benchmarks/training_step.py --layers 30 --sizes 4        all of its layers
    python benchmarks/training_step.py --device cuda      Llama-3.2-1B's shape, bfloat16

Retriever and language model have the same shape and carry adapters of r=256; batches are of random tokens, cut at the
paper's lengths and padded to 160. "full": every chunk is as long as it may be, the hardest case for us; "uneven", at the
first of the batch sizes: 60 to 156 tokens, and queries see their first half, as on Wikipedia. Both ways run by turns in
one process and must agree on the loss; peaks of memory are of fresh processes. Beyond the first size the probabilities
of the straightforward way do not fit, and its time is put together from parts. Ratios are of CPU seconds on a CPU, where
other work slows the clock.

Projected hours are operations of all batches / (4 * 312 TFLOP/s * MFU), by the formulas of `revela.plan.flops`.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from record import save, settle, show, timed
from rivals import cross_attention, revela_loss
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from revela.method.adapters import slim
from revela.objectives.revela import Revela
from revela.plan import flops
from revela.retriever import Retriever, add_lora
from revela.study.settings import Lora, Training
from revela.training import launch
from revela.training.compilation import compile_layers

LENGTH = 160
SMOLLM = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
QUICK = SMOLLM | {"vocab_size": 4096, "hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 3}
QUICK |= {"num_key_value_heads": 1, "num_hidden_layers": 2}
PAPER = {"wiki": (320_000, 44), "code": (358_763, 48)}  # batches, hours on 4 A100s


class Tokenizer:
    """Stands in for a tokenizer: batches are made of ids here."""

    eos_token_id = pad_token_id = 2
    truncation_side = name_or_path = "right"


def make(shape: dict, device: str, way: str = "revela", *, gate: float = 1.0, compiled: bool = False) -> Revela:
    """The objective on two random models of a shape, with adapters that are not zero.

    The straightforward way has PEFT's and transformers' own layers.
    """
    torch.manual_seed(0)
    gpu = device == "cuda"
    settings = Training(
        lora=Lora(dropout=0.0),
        temperature=1e-4,
        precision="bf16" if gpu else "fp32",
        cross_attention={"gate": gate},
    )
    config = LlamaConfig(**shape, max_position_embeddings=2048)
    with torch.device(device):
        models = [LlamaModel(config), LlamaForCausalLM(config)]
    models = [model.bfloat16() if gpu else model for model in models]
    backbone, lm = (add_lora(m, settings.lora, k) for m, k in zip(models, ("FEATURE_EXTRACTION", "CAUSAL_LM")))
    for model in (backbone, lm):
        if compiled:
            compile_layers(model)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.01)
    if way == "revela":
        slim(backbone)
        slim(lm)
    retriever = Retriever(backbone, Tokenizer(), max_length=157)
    return Revela(settings, retriever, lm, Tokenizer()).to(device).train()


def make_batch(size: int, kind: str, vocabulary: int, device: str) -> dict[str, torch.Tensor]:
    """What `Revela.collate` would make of a row."""
    generator = torch.Generator().manual_seed(size)
    lm = torch.full((size,), 156) if kind == "full" else torch.randint(60, 157, (size,), generator=generator)
    lengths = {"lm": lm, "passage": lm + 1, "query": lm + 1 if kind == "full" else lm // 2 + 1}
    batch = {}
    for part, of in lengths.items():
        mask = torch.arange(int(of.max())) < of[:, None]
        batch[f"{part}_input_ids"] = torch.randint(3, vocabulary, mask.shape, generator=generator) * mask
        batch[f"{part}_attention_mask"] = mask.long()
    batch["lm_labels"] = batch["lm_input_ids"].masked_fill(batch["lm_attention_mask"] == 0, -100)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def step(objective: Revela, batch: dict, way: str) -> float:
    """Forward and backward; the mean loss."""
    objective.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=batch["lm_labels"].is_cuda):
        if way == "revela":
            loss, _ = objective(batch)
        else:
            loss = revela_loss(objective, batch, LENGTH)
    loss.backward()
    return loss.item() / objective.count(batch)


def measure(objectives: dict[str, Revela], batch: dict, ways: list[str], repeats: int) -> dict[str, dict]:
    """The shortest of some repetitions, the ways by turns; they must agree on the loss."""
    best, losses = {}, {}
    for repeat in range(repeats + (batch["lm_labels"].is_cuda)):  # the first on a GPU is for its kernels to be chosen
        for way in ways:
            if batch["lm_labels"].is_cuda:
                torch.cuda.reset_peak_memory_stats()
            clock, cpu = time.perf_counter(), time.process_time()
            losses[way] = step(objectives[way], batch, way)
            times = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
            if way not in best or repeat == 0 or times["cpu_seconds"] < best[way]["cpu_seconds"]:
                best[way] = {name: round(value, 3) for name, value in times.items()}
            if batch["lm_labels"].is_cuda:
                best[way]["peak_gb"] = round(held("cuda"), 2)
    first, *rest = losses.values()
    tolerance = 2e-2 if batch["lm_labels"].is_cuda else 1e-4
    assert all(abs(loss / first - 1) < tolerance for loss in rest), losses
    return best


def by_parts(objective: Revela, measured: dict, size: int, larger: int, device: str) -> dict[str, float]:
    """Times of the straightforward way for a batch whose probabilities do not fit into memory.

    What it measured for a batch of `size` grows with B, but for the cross attention, which is measured for both sizes.
    """
    config = objective.lm.get_decoder().config

    def cross(documents: int) -> dict[str, float]:
        launch.configure_malloc(documents)

        def run():
            cross_attention(config, documents, LENGTH, device)
            if device == "cuda":
                torch.cuda.synchronize()

        return {unit: seconds * config.num_hidden_layers for unit, seconds in timed(run, 3).items()}

    first, then = cross(size), cross(larger)
    return {unit: round((measured[unit] - first[unit]) * larger / size + then[unit], 3) for unit in first}


def operations(objective: Revela, batch: dict) -> float:
    """Of the step, as the mathematics needs them: every document attends to one other."""
    lengths = {part: batch[f"{part}_attention_mask"].sum(1).tolist() for part in ("query", "passage", "lm")}
    shape = flops.Shape.from_config(objective.lm.config.to_dict())
    return flops.revela(objective.settings, shape, shape, lengths, attended=1)


def peak(arguments: list[str]) -> dict[str, float]:
    """GiB of a fresh process that takes one step: in all, and above what it held before the step."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def held(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text()  # getrusage would begin with what the parent process held
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def projection(mfu: float | None) -> list[dict]:
    """Hours of the paper's cells on 4 A100s, at an MFU that was measured or else at 45 %; all chunks full."""
    shape, settings = flops.Shape.from_config(LLAMA_1B), Training(lora=Lora())
    rows = []
    for corpus, (batches, paper_hours) in PAPER.items():
        query = 79 if corpus == "wiki" else 157
        lengths = {"query": [query] * 16, "passage": [157] * 16, "lm": [156] * 16}
        total = batches * flops.revela(settings, shape, shape, lengths)
        rows.append(
            {
                "cell": f"revela/{corpus}/llama-3.2-1b/llama-3.2-1b/bs16",
                "operations": total,
                "mfu": mfu or 0.45,
                "mfu_is": "measured" if mfu else "assumed",
                "hours": round(total / (4 * flops.PEAK["A100"] * (mfu or 0.45)) / 3600, 1),
                "paper_hours": paper_hours,
                "paper_mfu": round(total / (4 * flops.PEAK["A100"] * paper_hours * 3600), 3),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, once")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64], help="batch sizes (default: 16 64)")
    parser.add_argument("--kinds", nargs="+", default=["full", "uneven"])
    parser.add_argument("--repeats", type=int, default=2, help="of which the fastest counts (default: 2)")
    parser.add_argument("--layers", type=int, help="of each model (default: 6 on a CPU, 16 on a GPU)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gate", type=float, default=1.0, help="of the cross attention (default: 1, the paper's)")
    parser.add_argument("--compile", action="store_true", help="compile norms and MLPs, as training.compile does")
    parser.add_argument("--save-as", help="instead of the name of the device")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)  # in a fresh process: one step of one way
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    device = options.device
    shape = QUICK if options.quick else LLAMA_1B if device == "cuda" else SMOLLM
    shape = shape | ({"num_hidden_layers": options.layers} if options.layers else {})
    of_ours = {"gate": options.gate, "compiled": options.compile}
    if options.peak_of:
        objective = make(shape, device, options.peak_of, **of_ours)
        batch = make_batch(options.sizes[0], options.kinds[0], shape["vocab_size"], device)
        launch.configure_malloc(options.sizes[0])
        before = held(device)
        step(objective, batch, options.peak_of)
        print(json.dumps({"peak_gb": round(held(device), 2), "step_gb": round(held(device) - before, 2)}))
        return

    small, *larger = options.sizes
    ways = ["revela"] if options.gate != 1 or options.compile else ["revela", "straightforward"]
    objectives = {way: make(shape, device, way, **of_ours) for way in ways}
    objective = objectives["revela"]
    unit = "seconds" if device == "cuda" else "cpu_seconds"
    rows, whole = [], None
    for size, kind in [(small, kind) for kind in options.kinds] + [(size, options.kinds[0]) for size in larger]:
        batch = make_batch(size, kind, shape["vocab_size"], device)
        launch.configure_malloc(size)  # as the trainer does, for both ways
        times = {}
        try:
            times = measure(objectives, batch, ways if size == small else ["revela"], options.repeats)
            whole = whole or times[ways[-1]]
            if size != small and len(ways) == 2:
                times["straightforward, by parts"] = by_parts(objective, whole, small, size, device)
        except torch.OutOfMemoryError:
            print(f"B = {size}: {'the straightforward way' if times else 'revela'} does not fit", flush=True)
            for one in objectives.values():
                one.zero_grad()
            torch.cuda.empty_cache()
        if not times:
            break
        *_, rival = times.values()
        for way, taken in times.items():
            row = {"batch": size, "chunks": kind, "way": way, **taken, "ratio": round(rival[unit] / taken[unit], 2)}
            row["tflops"] = round(operations(objective, batch) / taken["seconds"] / 1e12, 3)
            if size == small and device == "cpu":
                given = ["--peak-of", way, "--sizes", str(size), "--kinds", kind, "--gate", str(options.gate)]
                given += ["--layers", str(shape["num_hidden_layers"])]
                row |= peak(given + ["--quick"] * options.quick + ["--compile"] * options.compile)
            rows.append(row)
            print(row, flush=True)
    show(rows)
    mfu = None
    if device == "cuda" and (limit := flops.peak(torch.cuda.get_device_name())):
        mfu = max(row["tflops"] * 1e12 / limit for row in rows if row["way"] == "revela")
    projected = projection(mfu)
    show(projected)
    settings = {"shape": shape, "length": LENGTH, "lora_rank": 256, "quick": options.quick, "projection": projected}
    settings |= {"gate": options.gate, "compile": options.compile}
    name = torch.cuda.get_device_name().replace(" ", "-").lower() if device == "cuda" else "cpu"
    name += f"-{options.layers}-layers" if options.layers else ""
    save(f"training_step-{options.save_as or name}", settings, rows)


if __name__ == "__main__":
    settle()  # for both ways
    main()
