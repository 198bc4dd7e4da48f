"""Reads GGUF files with the gguf package.

usage: read_gguf.py FILE             every field and tensor as JSON
       read_gguf.py FILE REFERENCE   also how far each tensor of FILE is from that of REFERENCE, an F32 export of the same
                                     model, and whether its bytes are those of the package's own quantiser (null: it has none)
"""
import json, sys
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, quants

reader = GGUFReader(sys.argv[1])
reference = {tensor.name: tensor for tensor in GGUFReader(sys.argv[2]).tensors} if len(sys.argv) > 2 else {}
fields = {}
for name, field in reader.fields.items():
    value = field.contents()
    fields[name] = {"types": [kind.name for kind in field.types], "value": value}
tensors = {}
for tensor in reader.tensors:
    entry = {"type": tensor.tensor_type.name, "shape": [int(size) for size in reversed(tensor.shape)], "offset": int(tensor.data_offset)}
    if reference:
        expected = reference[tensor.name].data
        values = quants.dequantize(tensor.data, tensor.tensor_type).reshape(expected.shape)
        entry["error"] = float(np.sqrt(np.mean((values.astype(np.float64) - expected) ** 2)) / np.sqrt(np.mean(expected.astype(np.float64) ** 2)))
        try:
            own = quants.quantize(expected, tensor.tensor_type)
            entry["same"] = bool(np.array_equal(np.ascontiguousarray(own).view(np.uint8).ravel(), np.ascontiguousarray(tensor.data).view(np.uint8).ravel()))
        except NotImplementedError:
            entry["same"] = None
    tensors[tensor.name] = entry
print(json.dumps({"fields": fields, "tensors": tensors, "alignment": int(reader.alignment)}))
