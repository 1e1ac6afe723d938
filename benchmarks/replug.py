"""REPLUG's scores of a batch, prefixes read once, against naive concatenation (`rivals.py`); and Revela beside them.

    python benchmarks/replug.py [--quick] [--device cuda]

Scores are of B x B pairs, so their time grows as B squared for both; a micro-step of Revela grows with B. Documents are
of 156 random tokens. Both ways run by turns in one process and must agree. Ratios are of CPU seconds on a CPU.
"""

import argparse

import torch
from record import save, show, timed
from rivals import replug_scores
from training_step import LLAMA_1B, QUICK, SMOLLM, make, make_batch, step

from revela.objectives.replug_scores import score_batch
from revela.study.specification import ReplugScoreSpec


class Ids:
    """A tokenizer whose texts are numbers: each is a document of random tokens."""

    eos_token_id = bos_token_id = -1

    def __init__(self, ids: torch.Tensor):
        self.ids = ids.tolist()

    def __call__(self, texts, **options):
        return {"input_ids": [self.ids[int(text)] for text in texts]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, small batches")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16], help="batch sizes (default: 4 8 16)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    device = options.device
    shape = QUICK if options.quick else LLAMA_1B if device == "cuda" else SMOLLM
    objective = make(shape, device)
    lm = objective.lm.unload()  # as it is before training, without adapters
    learner = make(shape, device)
    unit = "seconds" if device == "cuda" else "cpu_seconds"
    rows = []
    for size in options.sizes:
        batch = make_batch(size, "full", shape["vocab_size"], device)
        ids = batch["lm_input_ids"]
        texts = [str(number) for number in range(size)]
        spec = ReplugScoreSpec(length_normalised=True, lm_max_length=156, precision="fp32")
        found = {}

        def shared(texts=texts, spec=spec, ids=ids, found=found):
            found["shared"] = score_batch(lm, Ids(ids), texts, spec)

        def naive(ids=ids, found=found):
            found["naive"] = replug_scores(lm.eval(), ids).cpu()

        ways = {
            "prefixes once": shared,
            "concatenation": naive,
            "Revela's step": lambda b=batch: step(learner, b, "revela"),
        }
        times = {way: timed(run, 1) for way, run in ways.items()}
        torch.testing.assert_close(found["shared"], found["naive"], rtol=0.05 if device == "cuda" else 1e-3, atol=1e-3)
        for way, time in times.items():
            row = {"batch": size, "way": way, **time, "scores/s": round(size * size / time["seconds"], 2)}
            if way == "Revela's step":
                row["scores/s"] = ""
            rows.append(row | {"ratio": round(times["concatenation"][unit] / time[unit], 2)})
            print(rows[-1], flush=True)
    show(rows)
    name = torch.cuda.get_device_name().replace(" ", "-").lower() if device == "cuda" else "cpu"
    save(f"replug-{name}", {"shape": shape, "length": 156, "quick": options.quick}, rows)


if __name__ == "__main__":
    main()
