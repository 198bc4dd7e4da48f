"""Puts what run.sh measured together: OUT/report.json, and OUT/report.md for people.

usage: python3 report.py OUT

Reads proofs.log and sessions.log (libtest), golden.json, speed.json and clock.json (ours), peer.json (PyTorch) and parts.tsv,
each where it is there. A ratio is ours against PyTorch in the same run, above 1 is better; a part that is missing is listed
as missing, never filled in.
"""

import json
import re
import sys
from pathlib import Path


def read_json(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def read_proofs(path):
    """Outcomes of libtest's lines `test rope::equals_its_twin_in_f32 ... ok`; a test whose end is missing did not end."""
    if not path.exists():
        return None
    text = path.read_text(errors="replace")
    outcomes = {"ok": [], "FAILED": [], "ignored": [], "no end": []}
    for name, rest in re.findall(r"^test (\S+) \.\.\.([^\n]*)", text, re.M):
        outcome = next((known for known in ("ok", "FAILED", "ignored") if rest.strip().startswith(known)), None)
        if outcome is None:
            # Its own output may stand between its name and its end.
            after = text[text.index(f"test {name} ...") :]
            end = re.search(r"(?:^|\s)(ok|FAILED)$", after.split("\ntest ", 1)[0].strip(), re.M)
            outcome = end.group(1) if end else "no end"
        outcomes[outcome].append(name)
    faults = re.findall(r"^---- (\S+) stdout ----\n(.*?)(?=\n---- |\nfailures:|\Z)", text, re.M | re.S)
    return {
        "passed": len(outcomes["ok"]),
        "failed": outcomes["FAILED"],
        "unfinished": outcomes["no end"],
        "ignored": len(outcomes["ignored"]),
        "faults": {name: fault.strip()[:2000] for name, fault in faults},
    }


def read_parts(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []
    return [{"part": part, "exit": code, "seconds": int(seconds)} for part, code, seconds in rows]


def compare(ours, peer):
    """Attention by length: speeds of both sides, and their ratio."""
    rows = []
    theirs = {row["length"]: row for row in (peer or {}).get("attention", [])}
    for row in (ours or {}).get("attention", []):
        other = theirs.get(row["length"])
        which = f" {row['kernels']}" if row.get("kernels") else ""
        for pass_ in ("forward", "backward"):
            mine = row[f"{pass_}_tflops"]
            his = other and other[f"{pass_}_tflops"]
            rows.append(
                {"what": f"attention {pass_}{which}", "length": row["length"], "ours": mine, "peer": his, "ratio": his and mine / his}
            )
    return rows


def peak_of(speed, peer):
    """The measured peak of matrix products, TFLOP/s: the higher of cublasLt under ours and cuBLAS under PyTorch."""
    squares = [row["tflops"] for row in (peer or {}).get("gemm", []) if row["name"] == "square"]
    squares += [speed["gemm_peak_tflops"]] if speed else []
    return max(squares) if squares else None


def compare_training(speed, peer):
    """Steps of the same kind and lengths: tokens a second of both sides, and their ratio."""
    theirs = {(row["name"], row["length"]): row for row in (peer or {}).get("training", [])}
    rows = []
    for row in (speed or {}).get("training", []):
        other = theirs.get((row["name"], row["length"]))
        his = other and other["tokens_per_s"]
        mine = row["tokens_per_s"]
        rows.append({"what": row["name"], "length": row["length"], "ours": mine, "peer": his, "ratio": his and mine / his})
    return rows


def goals(speed, clock, compared):
    """What one H200 is to reach (issue 5); `found` is None where it was not measured."""

    def best(rows, name, key, choose=max):
        values = [row[key] for row in rows if row.get(key) is not None and (name is None or row.get("name", row.get("what")) == name)]
        return choose(values) if values else None

    training = [] if (speed or {}).get("emulated") else (speed or {}).get("training", [])
    backward = [row["backward_tflops"] for row in (clock or {}).get("attention", []) if row["length"] == 2048]
    memory = best(training, "dpo", "peak_memory_gib")
    wanted = [
        ("full DPO, tok/s", 13_000, best(training, "dpo", "tokens_per_s"), "at least"),
        ("full DPO, share of GEMM peak", 0.6, best(training, "dpo", "share_of_gemm_peak"), "at least"),
        ("LoRA DPO, tok/s", 19_000, best(training, "dpo-lora", "tokens_per_s"), "at least"),
        ("full DPO against PyTorch", 1.5, best(compared, "dpo", "ratio"), "at least"),
        ("LoRA DPO against PyTorch", 1.5, best(compared, "dpo-lora", "ratio"), "at least"),
        ("full DPO, memory in GB", 80, memory and memory * 2**30 / 1e9, "at most"),
        ("attention backward at 2048, TFLOP/s", 250, max(backward, default=None), "at least"),
    ]
    return [
        {
            "what": what,
            "goal": goal,
            "bound": bound,
            "found": found,
            "met": None if found is None else (found >= goal if bound == "at least" else found <= goal),
        }
        for what, goal, found, bound in wanted
    ]


def build(out):
    ours, peer, speed = (read_json(out / f"{name}.json") for name in ("clock", "peer", "speed"))
    peak = peak_of(speed, peer)
    for row in (peer or {}).get("training", []) + (speed or {}).get("training", []):
        row["share_of_gemm_peak"] = row["model_tflops"] / peak if peak else None
    files = {
        "proofs": out / "proofs.log",
        "sessions": out / "sessions.log",
        "golden": out / "golden.json",
        "speed": out / "speed.json",
        "clock": out / "clock.json",
        "peer": out / "peer.json",
    }
    compared_training = compare_training(speed, peer)
    return {
        "proofs": read_proofs(files["proofs"]),
        "sessions": read_proofs(files["sessions"]),
        "golden": read_json(files["golden"]),
        "speed": speed,
        "ours": ours,
        "peer": peer,
        "gemm_peak_tflops": peak,
        "compared": compare(ours, peer),
        "compared_training": compared_training,
        "goals": goals(speed, ours, compared_training),
        "parts": read_parts(out / "parts.tsv"),
        "missing": [name for name, path in files.items() if not path.exists()],
    }


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value, digits=1):
    return "—" if value is None else f"{value:,.{digits}f}"


def markdown(report):
    parts = ["# The CUDA kernels and the training on a GPU", ""]
    peer, ours, speed = report["peer"], report["ours"], report["speed"]
    device = (ours or speed or {}).get("device") or ((peer or {}).get("device") or {}).get("name") or "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in ((peer or {}).get("versions") or {}).items())
    parts += [f"{device}; {versions or 'no PyTorch'}." + (" A smoke run on the CPU: no figure means anything." if (peer or {}).get("smoke") else "")]
    if report["missing"]:
        parts += ["", f"Missing: {', '.join(report['missing'])}."]
    for title, proofs in [("Proofs of kernels against the CPU twins", report["proofs"]), ("Sessions against TRL and the CPU", report["sessions"])]:
        if not proofs:
            continue
        parts += ["", f"{title}: {proofs['passed']} passed, {len(proofs['failed'])} failed, {len(proofs['unfinished'])} did not end."]
        parts += [f"- {name}: {proofs['faults'].get(name, '').splitlines()[0] if proofs['faults'].get(name) else 'no message'}" for name in proofs["failed"]]
    golden = report["golden"]
    if golden:
        runs = "; ".join(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}" for name, losses in golden["losses"].items())
        parts += ["", f"{golden['steps']} steps of the golden DPO runs, twice with the same bits: {runs}."]
    if speed and speed.get("emulated"):
        parts += ["", "Training ran tiny on the emulation: no figure means anything."]
    rows = [
        [row["what"], f"{row['bound']} {row['goal']:g}", "not measured" if row["found"] is None else f"{row['found']:,.2f}", {True: "yes", False: "no", None: "—"}[row["met"]]]
        for row in report["goals"]
    ]
    parts += ["", table(["goal (one H200)", "", "found", "met"], rows)]
    if report["compared"]:
        rows = [
            [row["what"], row["length"], number(row["ours"], 0), number(row["peer"], 0), "—" if row["ratio"] is None else f"{row['ratio']:.2f}×"]
            for row in report["compared"]
        ]
        parts += ["", table(["", "length", "ours TFLOP/s", "PyTorch TFLOP/s", "ratio"], rows)]
    if ours:
        rows = [[row["name"], row["shape"], f"{row['ms']:.3f}", number(row.get("gb_per_s"), 0)] for row in ours["kernels"]]
        parts += ["", table(["kernel", "shape", "ms", "GB/s"], rows)]
    if peer and peer["gemm"]:
        rows = [[row["name"], row["kind"], f"{row['m']}×{row['n']}×{row['k']}", f"{row['ms']:.3f}", number(row["tflops"], 0)] for row in peer["gemm"]]
        parts += ["", table(["cuBLAS", "", "m×n×k", "ms", "TFLOP/s"], rows)]
    sides = [
        (f"{who} {row['name']}" + (" (layers computed again)" if row.get("checkpointing") or row.get("recompute") == "layer" else ""), row)
        for who, side in [("zephyr-align", speed), ("PyTorch", peer)]
        for row in (side or {}).get("training", [])
    ]
    if sides:
        rows = [
            [
                name,
                f"{row['sequences']}×{row['length']}",
                number(row["tokens_per_s"], 0),
                number(row["pairs_per_s"]),
                number(row["model_tflops"], 2),
                "—" if row["share_of_gemm_peak"] is None else f"{100 * row['share_of_gemm_peak']:.0f} %",
                number(row["peak_memory_gib"]),
            ]
            for name, row in sides
        ]
        parts += ["", table(["training", "batch", "tok/s", "pairs/s", "model TFLOP/s", "of GEMM peak", "peak GiB"], rows)]
    if report["compared_training"]:
        rows = [
            [row["what"], row["length"], number(row["ours"], 0), number(row["peer"], 0), "—" if row["ratio"] is None else f"{row['ratio']:.2f}×"]
            for row in report["compared_training"]
        ]
        parts += ["", table(["training", "length", "ours tok/s", "PyTorch tok/s", "ratio"], rows)]
    if speed and speed.get("generating"):
        rows = [
            [row["sequences"], row["prompt"], number(row["prompt_tokens_per_s"], 0), f"{row['ms_per_step']:.2f}", number(row["tokens_per_s"], 0), number(row["memory_gib"])]
            for row in speed["generating"]
        ]
        parts += ["", table(["generating: sequences", "prompt", "prompt tok/s", "ms a step", "tok/s", "GiB"], rows)]
    for row in (speed or {}).get("training", []):
        classes = sorted(row["classes"].items(), key=lambda item: -item[1]["ms"])
        rows = [[name, each["launches"], f"{each['ms']:.2f}", f"{100 * each['share']:.1f} %", number(each.get("tflops"), 0)] for name, each in classes]
        parts += ["", f"A step of {row['name']} at {row['length']}, recompute {row['recompute']} ({row['plan']}), class by class:"]
        parts += ["", table(["class", "launches", "ms", "share", "TFLOP/s"], rows)]
    left_out = [row for side in (speed, peer) for row in (side or {}).get("left_out", [])]
    if left_out:
        parts += ["", "Left out:", *[f"- {row['name']}: {row['reason']}" for row in left_out]]
    parts += ["", table(["part", "exit", "seconds"], [[row["part"], row["exit"], row["seconds"]] for row in report["parts"]])]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    out = Path(sys.argv[1])
    report = build(out)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "report.md").write_text(markdown(report))
    print(f"{out}/report.md")
