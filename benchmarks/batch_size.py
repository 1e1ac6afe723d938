"""Time and memory of a step against the batch size, with batches that 1, 2 and 4 processes share.

    python benchmarks/batch_size.py [--quick]        tiny-4m, float32, a CPU thread for each process

Retriever and language model are tiny-4m, trained in full; batches are of random tokens in chunks of 12 to
30. At tau = 0.0001 documents attend to few others, whose keys and values go from process to process; at tau = 10 to
all, which is left out for batches of more than 64, whose cross attention would take minutes. All numbers of processes must agree on the loss. Seconds are those of forward and backward pass, the optimizer's are
left out; memory is the peak of the process that has most, above what it held before; `received_mb` is what came to a
process, by the formulas of `revela.plan.traffic`.

Sizes can be measured one by one (`--sizes 256`); what was stored of others is kept. Beside that, on paper, batches of up to 512 chunks on eight A100s.
"""

import argparse
import math
import multiprocessing
import os
import socket
import time
from pathlib import Path

import torch
import torch.distributed as dist
from record import save, show, stored

from revela.method.exchange import Group
from revela.objectives.revela import Revela
from revela.plan import flops, memory, traffic
from revela.study.settings import Lora, Training
from revela.study.sizes import load_sizes
from revela.training import launch
from revela.training.engine import load_models, set_arithmetic
from revela.training.speed import text_lengths

BACKBONE = Path(__file__).parents[1] / "resources/backbones/tiny-4m"
LENGTHS = 12, 30  # tokens of a chunk, at least and at most
TAUS = {"few": 1e-4, "all": 10.0}
SETTINGS = {"precision": "fp32", "retriever_max_length": 32, "lm_max_length": 30, "similarity_dtype": "float32"}


def make_batch(size: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """What `Revela.collate` would make of a row."""
    generator, batch = torch.Generator().manual_seed(size), {}
    chunks = torch.randint(LENGTHS[0], LENGTHS[1] + 1, (size,), generator=generator)
    for part, of in {"lm": chunks, "passage": chunks + 2, "query": chunks + 2}.items():
        mask = torch.arange(int(of.max())) < of[:, None]
        batch[f"{part}_input_ids"] = torch.randint(3, vocabulary, mask.shape, generator=generator) * mask
        batch[f"{part}_attention_mask"] = mask.long()
    batch["lm_labels"] = batch["lm_input_ids"].masked_fill(batch["lm_attention_mask"] == 0, -100)
    return batch


def status(name: str) -> float:
    """MiB, from /proc: VmHWM is the peak."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 2**10


def work(rank: int, processes: int, port: int, size: int, temperature: float, repeats: int, answers):
    """The steps of one process of those that share a batch."""
    set_arithmetic()
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    launch.configure_malloc(size // processes)
    settings = Training(**SETTINGS, temperature=temperature, processes_per_batch=processes)
    objective = Revela(settings, *load_models(settings, BACKBONE, BACKBONE)).train()
    objective.group = Group.of_neighbours(processes)
    whole = make_batch(size, objective.lm.config.vocab_size)
    batch, before, best = objective.part(whole), status("VmRSS"), math.inf
    for _ in range(repeats):
        objective.zero_grad()
        dist.barrier()
        started = time.perf_counter()
        loss, scalars = objective(batch)
        loss.backward()
        dist.barrier()
        best = min(best, time.perf_counter() - started)
    peak = torch.tensor(status("VmHWM") - before)
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    total = loss.detach()
    dist.all_reduce(total)
    if rank == 0:
        shape = flops.Shape.from_config(objective.lm.config.to_dict())
        attended = float(scalars["attended"])
        coming = traffic.received(settings, shape, shape, text_lengths(whole), attended=attended)
        answers.put(
            {
                "seconds": round(best, 2),
                "peak_mb": round(float(peak)),
                "attended": round(attended, 1),
                "received_mb": round(coming / 1e6, 1),
                "loss": float(total) / objective.count(whole),
            }
        )
    dist.destroy_process_group()


def measure(processes: int, *arguments) -> dict:
    """A row, from fresh processes."""
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["revela.training.engine", "revela.objectives.revela", "peft"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = spawn.SimpleQueue()
    started = [
        spawn.Process(target=work, args=(rank, processes, port, *arguments, answers)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0
    return answers.get()


def on_paper() -> list[dict]:
    """Batches of full chunks that eight A100s share: memory, seconds at 45 % MFU, and what comes to each GPU."""
    shape = flops.Shape(**load_sizes().models["llama-3.2-1b"].model_dump(exclude={"parameters"}))
    rows = []
    for size in (16, 64, 128, 256, 512):
        processes = min(8, size // 16)
        for checkpointing in (False, True):
            settings = Training(lora=Lora(), processes_per_batch=processes, temperature=1e-4)
            lengths = {"query": [157] * size, "passage": [157] * size, "lm": [156] * size}
            total = flops.revela(settings, shape, shape, lengths)
            few, every = (
                traffic.received(settings, shape, shape, lengths, attended=attended, checkpointing=checkpointing) / 1e9
                for attended in (1, size)
            )
            rows.append(
                {
                    "batch": size,
                    "gpus": processes,
                    "checkpointing": checkpointing,
                    "gb": round(memory.peak(settings, [shape, shape], size, 8, checkpointing=checkpointing) / 1e9, 1),
                    "seconds": round(total / (processes * flops.PEAK["A100"] * 0.45), 2),
                    "received_gb_few": round(few, 2),
                    "received_gb_all": round(every, 2),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="batches of 8, once; nothing is stored")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256], help="batch sizes (default: 16 64 256)")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2, 4], help="that share a batch (default: 1 2 4)"
    )
    parser.add_argument("--repeats", type=int, default=2, help="of which the fastest counts (default: 2)")
    options = parser.parse_args()
    sizes, repeats = ([8], 1) if options.quick else (options.sizes, options.repeats)
    about = {"lengths": LENGTHS, "temperatures": TAUS, "on_paper": on_paper()}
    rows = [] if options.quick else stored("batch_size")
    for size in sizes:
        for attended, temperature in TAUS.items():
            if attended == "all" and size > 64:
                continue
            for processes in options.processes:
                key = {"batch": size, "processes": processes, "pairs": attended}
                row = key | measure(processes, size, temperature, repeats if size < 64 else 1)
                rows = [other for other in rows if not key.items() <= other.items()] + [row]
                rows.sort(key=lambda row: (row["batch"], row["pairs"] == "all", row["processes"]))
                print(row, flush=True)
                if not options.quick:
                    save("batch_size", about, rows)
            losses = [row["loss"] for row in rows if (row["batch"], row["pairs"]) == (size, attended)]
            assert max(losses) - min(losses) < 1e-4 * min(losses), losses
    show(rows)
    show(about["on_paper"])


if __name__ == "__main__":
    launch.settle(os.environ)  # which the processes inherit
    main()
