"""Python's `tokenizers` over the contents of the first conversations of a file; prints one JSON line. Started by data.mjs.

usage: python data_tokens.py TOKENIZER FILE TEXTS        (RAYON_NUM_THREADS, TOKENIZERS_PARALLELISM)
"""

import hashlib, json, sys, time
from tokenizers import Tokenizer

file, rows, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = Tokenizer.from_file(file)
texts = []
with open(rows, encoding="utf8") as lines:
    for line in lines:
        texts += [message["content"] for message in json.loads(line)["messages"]]
        if len(texts) >= count:
            break
texts = texts[:count]
ways = {
    "encode": lambda batch: [tokenizer.encode(text, add_special_tokens=False) for text in batch],
    "encode_batch": lambda batch: tokenizer.encode_batch(batch, add_special_tokens=False),
    "encode_batch_fast": lambda batch: tokenizer.encode_batch_fast(batch, add_special_tokens=False),
}
best = None
for way, encode in ways.items():
    encode(texts[:100])
    started = time.perf_counter()
    encoded = encode(texts)
    # What is asked for are ids, as ours gives them.
    ids = [each.ids for each in encoded]
    seconds = time.perf_counter() - started
    tokens = sum(map(len, ids))
    if best is None or tokens / seconds > best["tokens_per_s"]:
        digest = hashlib.sha256(b"".join(i.to_bytes(4, "little") for each in ids for i in each)).hexdigest()
        best = {"tokens": tokens, "tokens_per_s": tokens / seconds, "way": way, "hash": digest}
print(json.dumps(best))
