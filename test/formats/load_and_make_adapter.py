"""Loads an adapter with peft, and makes one with a pattern of ranks.

usage: load_and_make_adapter.py BASE ADAPTER NEW IDS    the logits under each, as JSON
"""
import json, sys
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

base, adapter, new, ids = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])


def model():
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def run(model):
    return model.eval()(torch.tensor([ids])).logits[0].flatten().tolist()


with torch.no_grad():
    loaded = run(PeftModel.from_pretrained(model(), adapter))
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["v_proj", "up_proj"], rank_pattern={"up_proj": 2}, task_type="CAUSAL_LM")
    made = get_peft_model(model(), config)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1)
    made.save_pretrained(new)
    print(json.dumps([loaded, run(made)]))
