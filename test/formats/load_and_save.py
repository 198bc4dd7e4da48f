"""Loads folders with transformers, and saves them again as transformers does.

usage: load_and_save.py REQUEST

REQUEST is JSON: { folders: [[folder, out]…], ids, texts, messages, shard }. Prints one line of JSON with an answer for each
folder: the logits after each of the ids, the tokens of each text, the rendering of the messages, and the end tokens of the
generation configuration.
"""
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

request = json.loads(sys.argv[1])
answers = []
for folder, out in request["folders"]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(torch.tensor([request["ids"]])).logits[0].flatten().tolist()
    model.save_pretrained(out, max_shard_size=request["shard"])
    tokenizer.save_pretrained(out)
    answers.append({
        "logits": logits,
        "tokens": [tokenizer.encode(text, add_special_tokens=False) for text in request["texts"]],
        "rendered": tokenizer.apply_chat_template(request["messages"], tokenize=False, add_generation_prompt=True),
        "eos": model.generation_config.eos_token_id,
    })
print(json.dumps(answers))
