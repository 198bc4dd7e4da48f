"""Writes a GGUF file again with the gguf package, in parts of so many tensors as gguf-split makes them.

usage: split_gguf.py FILE OUT.gguf TENSORS      (OUT-00001-of-0000N.gguf, …)
"""
import sys
from gguf import GGUFReader, GGUFValueType, GGUFWriter

reader = GGUFReader(sys.argv[1])
writer = GGUFWriter(None, reader.fields["general.architecture"].contents(), split_max_tensors=int(sys.argv[3]))
for name, field in reader.fields.items():
    if name.startswith("GGUF.") or name == "general.architecture":
        continue
    kind = field.types[0]
    writer.add_key_value(name, field.contents(), kind, sub_type=field.types[-1] if kind == GGUFValueType.ARRAY else None)
for tensor in reader.tensors:
    writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
writer.write_header_to_file(path=__import__("pathlib").Path(sys.argv[2]))
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
