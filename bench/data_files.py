"""Writes chats.parquet (row groups of 1000, as the Hub's files have), one-group.parquet and chats.jsonl.zst beside chats.jsonl.

usage: python data_files.py FOLDER
"""

import json, pathlib, sys
import pyarrow as pa
import pyarrow.parquet as pq

folder = pathlib.Path(sys.argv[1])
message = pa.struct([("content", pa.string()), ("role", pa.string())])
schema = pa.schema([("prompt", pa.string()), ("prompt_id", pa.string()), ("messages", pa.list_(message))])


def batches(size):
    rows = []
    with open(folder / "chats.jsonl", encoding="utf8") as lines:
        for line in lines:
            rows.append(json.loads(line))
            if len(rows) == size:
                yield pa.Table.from_pylist(rows, schema=schema)
                rows = []
    if rows:
        yield pa.Table.from_pylist(rows, schema=schema)


tables = []
with pq.ParquetWriter(folder / "chats.parquet", schema) as writer:
    for table in batches(1000):
        writer.write_table(table)
        tables.append(table)
whole = pa.concat_tables(tables)
pq.write_table(whole, folder / "one-group.parquet", row_group_size=len(whole))
with pa.OSFile(str(folder / "chats.jsonl"), "rb") as source, pa.CompressedOutputStream(str(folder / "chats.jsonl.zst"), "zstd") as sink:
    while part := source.read(1 << 20):
        sink.write(part)
