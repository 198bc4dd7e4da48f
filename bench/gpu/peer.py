"""PyTorch on the same shapes as ours: cuBLAS products, scaled_dot_product_attention, and transformers' Mistral as a trainer.

usage: python3 peer.py --out FILE [--budget SECONDS] [--smoke]

--smoke runs everything on the CPU with a tiny model, so that the script is known to work where no GPU is. Jobs that do not
fit the budget or the memory are listed in `left_out` with the reason. Times are medians; memory is the allocator's peak.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as functional

import flops

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--budget", type=float, default=240)
parser.add_argument("--smoke", action="store_true")
options = parser.parse_args()

started = time.monotonic()
smoke = options.smoke
device = torch.device("cpu" if smoke else "cuda")
report = {"peer": True, "smoke": smoke, "copy": [], "gemm": [], "attention": [], "training": [], "left_out": []}


def seconds_left():
    return options.budget - (time.monotonic() - started)


def leave_out(name, reason):
    report["left_out"].append({"name": name, "reason": reason})


def write():
    """After each job, so that a limit of time costs only what is not done."""
    with open(options.out, "w") as file:
        json.dump({**report, "seconds": time.monotonic() - started}, file, indent=1)


def median_ms(work, repetitions=3 if smoke else 20, warm_up=1 if smoke else 5):
    """Milliseconds of one call: on a GPU between two events around each, after a warm-up."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repetitions):
        if smoke:
            start = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - start))
        else:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            work()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last))
    return statistics.median(times)


def random(*shape):
    return torch.randn(*shape, device=device, dtype=torch.bfloat16)


def measure_copy():
    """Bytes read plus bytes written."""
    size = 2**20 if smoke else 2**31
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = median_ms(lambda: target.copy_(source))
    report["copy"].append({"bytes": 2 * size, "ms": ms, "gb_per_s": 2 * size / ms / 1e6})


def measure_products():
    """cuBLAS, bf16 in, f32 sums: a large square one (the peak), then the products of a layer at 8192 tokens."""
    tokens, square = (64, 128) if smoke else (8192, 8192)
    shapes = [("square", square, square, square)]
    shapes += [(name, tokens, rows, columns) for name, rows, columns in flops.products(config())]
    for name, m, n, k in shapes:
        x, w, y = random(m, k), random(n, k), random(m, n)
        kinds = [("forward", lambda: x @ w.T), ("d_input", lambda: y @ w), ("d_weight", lambda: y.T @ x)]
        for kind, work in kinds[: 1 if name == "square" else 3]:
            ms = median_ms(work)
            tflops = 2 * m * n * k / ms / 1e9
            report["gemm"].append({"name": name, "kind": kind, "m": m, "n": n, "k": k, "ms": ms, "tflops": tflops})


def measure_attention():
    """Causal, grouped queries, by the fastest backend that PyTorch has for it; only pairs that are seen are counted."""
    c = config()
    heads, groups, width = c["num_attention_heads"], c["num_key_value_heads"], c["hidden_size"] // c["num_attention_heads"]
    total = 128 if smoke else 8192
    for length in [64] if smoke else [1024, 2048, 4096]:
        shape = (total // length, heads, length, width)
        few = (total // length, groups, length, width)
        query, key, value, d_out = random(*shape), random(*few), random(*few), random(*shape)
        for each in (query, key, value):
            each.requires_grad_(True)

        def forward():
            return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

        forward_ms = median_ms(lambda: forward().detach())
        out = forward()

        def backward():
            query.grad = key.grad = value.grad = None
            out.backward(d_out, retain_graph=True)

        backward_ms = median_ms(backward)
        pairs = (total // length) * length * (length + 1) // 2
        work = flops.attention(c, pairs, layers=1)
        report["attention"].append(
            {
                "length": length,
                "tokens": total,
                "heads": heads,
                "kv_heads": groups,
                "head_dim": width,
                "forward_ms": forward_ms,
                "backward_ms": backward_ms,
                "forward_tflops": work / forward_ms / 1e9,
                # As flash attention counts it: five products for two.
                "backward_tflops": 2.5 * work / backward_ms / 1e9,
            }
        )


def config():
    """Mistral-7B's shape, or a tiny one."""
    return flops.TINY if smoke else flops.MISTRAL_7B


def best_attention():
    try:
        import flash_attn  # noqa: F401

        return "flash_attention_2"
    except ImportError:
        return "sdpa"


def new_model():
    from transformers import MistralConfig, MistralForCausalLM

    settings = MistralConfig(**config(), attn_implementation="sdpa" if smoke else best_attention(), use_cache=False)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = MistralForCausalLM(settings)
    finally:
        torch.set_default_dtype(default)
    return model.train()


def adapted(model):
    """LoRA of rank 16 on every projection, as PEFT makes it."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))


def logps(model, ids, answers):
    """Sum of the log-probs of each row's answer, as TRL's selective_log_softmax: row by row, in bf16 logits."""
    logits = model(input_ids=ids).logits[:, :-1]
    targets = ids[:, 1:]
    rows = []
    for row, target in zip(logits, targets):
        rows.append(functional.log_softmax(row.float(), dim=-1).gather(1, target[:, None]).squeeze(1))
    return (torch.stack(rows) * answers[:, 1:]).sum(1)


def sft_loss(model, ids, answers, _):
    labels = torch.where(answers.bool(), ids, -100)
    return model(input_ids=ids, labels=labels).loss


def dpo_loss(model, ids, answers, reference):
    """Sigmoid loss of pairs with a reference that was computed before; chosen rows first."""
    ratio = logps(model, ids, answers) - reference
    chosen, rejected = ratio.chunk(2)
    return -functional.logsigmoid(0.1 * (chosen - rejected)).mean()


def train(name, loss_of, model, lora, sequences, length):
    """A few whole steps: forward, backward, clip, AdamW (fused, states in the weights' type)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-7, fused=not smoke)
    ids = torch.randint(3, config()["vocab_size"], (sequences, length), device=device)
    # Half of each row is an answer.
    answers = torch.zeros_like(ids)
    answers[:, length // 2 :] = 1
    reference = torch.zeros(sequences, device=device)

    def step():
        loss = loss_of(model, ids, answers, reference)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    if not smoke:
        torch.cuda.reset_peak_memory_stats()
    warm_up, measured = (1, 2) if smoke else (2, 5)
    losses, times = [], []
    for _ in range(warm_up + measured):
        start = time.perf_counter()
        losses.append(step())
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[warm_up:])
    tokens = sequences * length
    work = flops.step(config(), [length] * sequences, predicted=int(answers[:, 1:].sum()), lora_rank=16 if lora else None)
    pairs = sequences // 2 if loss_of is dpo_loss else None
    report["training"].append(
        {
            "name": name,
            "sequences": sequences,
            "length": length,
            "tokens": tokens,
            "seconds_per_step": seconds,
            "tokens_per_s": tokens / seconds,
            "pairs_per_s": pairs and pairs / seconds,
            "model_tflops": work / seconds / 1e12,
            "peak_memory_gib": None if smoke else torch.cuda.max_memory_allocated() / 2**30,
            "attention": model.config._attn_implementation,
            "checkpointing": bool(getattr(model, "is_gradient_checkpointing", False)),
            "first_loss": losses[0],
        }
    )


def measure_training():
    """Full parameters first, then an adapter over the same weights. Where it does not fit, layers are computed again."""
    model = new_model()
    jobs = [("sft", sft_loss, False), ("dpo", dpo_loss, False), ("sft-lora", sft_loss, True), ("dpo-lora", dpo_loss, True)]
    shapes = [(4, 32)] if smoke else [(8, 1024), (4, 2048)]
    planned = [(name, loss_of, lora, *shape) for part in (jobs[:2], jobs[2:]) for shape in shapes for name, loss_of, lora in part]
    for name, loss_of, lora, sequences, length in planned:
        # The longer shape is worth less than the adapter's first.
        reserved = 25 if length == 1024 else 60 if not lora else 15
        if seconds_left() < (1 if smoke else reserved):
            leave_out(f"{name} {length}", "no time left")
            continue
        if lora and not hasattr(model, "peft_config"):
            try:
                model = adapted(model)
            except ImportError as error:
                leave_out(f"{name} {length}", str(error))
                continue
        for checkpointing in (False, True):
            try:
                if checkpointing:
                    model.gradient_checkpointing_enable({"use_reentrant": False})
                train(name, loss_of, model, lora, sequences, length)
                break
            except torch.OutOfMemoryError as error:
                model.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                if checkpointing:
                    leave_out(f"{name} {length}", f"out of memory: {str(error).splitlines()[0]}")
        model.gradient_checkpointing_disable()
        write()


def describe():
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    report["versions"] = versions
    if not smoke:
        card = torch.cuda.get_device_properties(0)
        report["device"] = {"name": card.name, "memory_gib": card.total_memory / 2**30, "cuda": torch.version.cuda}
    else:
        report["device"] = {"name": "CPU", "memory_gib": None, "cuda": None}


torch.manual_seed(1)
describe()
for part in (measure_copy, measure_products, measure_attention, measure_training):
    if seconds_left() < 0:
        leave_out(part.__name__, "no time left")
        continue
    try:
        part()
    except Exception as error:  # noqa: BLE001: what one part cannot do must not cost the others
        leave_out(part.__name__, f"{type(error).__name__}: {error}")
    if not smoke:
        torch.cuda.empty_cache()
    write()
