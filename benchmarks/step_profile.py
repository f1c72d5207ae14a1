"""Where the time of one training step goes, ours and plain PyTorch's, by torch's profiler.

For what can't be timed in turns: bfloat16 on a processor without instructions for it takes minutes a step.
Threads' own times are added up, so in float32 on several threads the parts exceed the whole.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import plain
import torch
import training_step
from torch.profiler import ProfilerActivity, profile

from genie_cpp.training import keep_freed_memory

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::linear", "aten::mkldnn_linear")
ATTENTION = ("genie::st_attention", "genie::_st_attention_backward", "aten::_scaled_dot_product")


def part_of(operation: str) -> str:
    if operation in PRODUCTS:
        return "products outside attention"
    return "attention" if operation.startswith(ATTENTION) else "all else"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tokenizer", choices=training_step.MODELS)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    keep_freed_memory()
    ours, loss, theirs, their_loss, _ = training_step.make_case(
        options.model, plain.Sizes(batch=options.batch)
    )
    for side, model, side_loss in (("ours", ours, loss), ("plain", theirs, their_loss)):
        step = training_step.stepper(model, side_loss, getattr(torch, options.dtype))
        with profile(activities=[ProfilerActivity.CPU]) as record:
            begin = time.perf_counter()
            step()
            seconds = time.perf_counter() - begin
        parts: defaultdict[str, float] = defaultdict(float)
        for event in record.key_averages():
            parts[part_of(event.key)] += event.self_cpu_time_total * 1e-6
        shown = ", ".join(f"{part} {time_of_it:.2f} s" for part, time_of_it in parts.items())
        print(f"{side}: {seconds:.1f} s; {shown}", flush=True)


if __name__ == "__main__":
    main()
