"""Puts what run.sh measured together: OUT/report.json, and OUT/report.md for people.

usage: python3 report.py OUT

Reads proofs.log (libtest), clock.json (ours), peer.json (PyTorch) and parts.tsv, each where it is there. A ratio is ours
against PyTorch in the same run, above 1 is better; a part that is missing is listed as missing, never filled in.
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
        for pass_ in ("forward", "backward"):
            mine = row[f"{pass_}_tflops"]
            his = other and other[f"{pass_}_tflops"]
            rows.append(
                {"what": f"attention {pass_}", "length": row["length"], "ours": mine, "peer": his, "ratio": his and mine / his}
            )
    return rows


def peak_of(peer):
    """The measured peak of matrix products, TFLOP/s."""
    squares = [row["tflops"] for row in (peer or {}).get("gemm", []) if row["name"] == "square"]
    return max(squares) if squares else None


def build(out):
    ours, peer = read_json(out / "clock.json"), read_json(out / "peer.json")
    peak = peak_of(peer)
    for row in (peer or {}).get("training", []):
        row["share_of_gemm_peak"] = row["model_tflops"] / peak if peak else None
    files = {"proofs": out / "proofs.log", "clock": out / "clock.json", "peer": out / "peer.json"}
    return {
        "proofs": read_proofs(files["proofs"]),
        "ours": ours,
        "peer": peer,
        "gemm_peak_tflops": peak,
        "compared": compare(ours, peer),
        "parts": read_parts(out / "parts.tsv"),
        "missing": [name for name, path in files.items() if not path.exists()],
    }


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value, digits=1):
    return "—" if value is None else f"{value:,.{digits}f}"


def markdown(report):
    parts = ["# The CUDA kernels on a GPU", ""]
    peer, ours, proofs = report["peer"], report["ours"], report["proofs"]
    device = (ours or {}).get("device") or ((peer or {}).get("device") or {}).get("name") or "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in ((peer or {}).get("versions") or {}).items())
    parts += [f"{device}; {versions or 'no PyTorch'}." + (" A smoke run on the CPU: no figure means anything." if (peer or {}).get("smoke") else "")]
    if report["missing"]:
        parts += ["", f"Missing: {', '.join(report['missing'])}."]
    if proofs:
        parts += ["", f"Proofs against the CPU twins: {proofs['passed']} passed, {len(proofs['failed'])} failed, {len(proofs['unfinished'])} did not end."]
        parts += [f"- {name}: {proofs['faults'].get(name, '').splitlines()[0] if proofs['faults'].get(name) else 'no message'}" for name in proofs["failed"]]
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
    if peer and peer["training"]:
        rows = [
            [
                f"PyTorch {row['name']}" + (" (layers computed again)" if row["checkpointing"] else ""),
                f"{row['sequences']}×{row['length']}",
                number(row["tokens_per_s"], 0),
                number(row["pairs_per_s"]),
                number(row["model_tflops"], 2),
                "—" if row["share_of_gemm_peak"] is None else f"{100 * row['share_of_gemm_peak']:.0f} %",
                number(row["peak_memory_gib"]),
            ]
            for row in peer["training"]
        ]
        parts += ["", table(["training", "batch", "tok/s", "pairs/s", "model TFLOP/s", "of GEMM peak", "peak GiB"], rows)]
    left_out = (peer or {}).get("left_out", [])
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
