"""Makes tests/unit/data/methods: a tiny random LLaMA (with attention biases) and GPT-2, and adapter folders as peft writes them,
with random non-zero parameters, each with expected.safetensors: the logits of the ids below, the task loss and the
gradient of every adapter tensor.  Bottleneck adapters (not in peft) are computed here by their definition.
Run: python3 tests/peers/make_methods.py [NAME...]   (names: these alone; torch, transformers, peft, safetensors)   SPDX-License-Identifier: Apache-2.0
"""
import json, os, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
import peft

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unit", "data", "methods")
IDS = [[3, 7, 1, 9, 30, 2], [5, 5, 0, 17, 22, 8, 11]]
LABELS = [[-100, -100, 1, 9, 30, 2], [-100, 5, 0, 17, -100, 8, 11]]


def base(kind="base"):
    torch.manual_seed(7)
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_inner=24, n_layer=2, n_head=4, n_positions=16,
                                           initializer_range=0.3, bos_token_id=1, eos_token_id=2))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.dim() == 1:
                    p.add_(0.3 * torch.randn_like(p))
        return model.eval()
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                         tie_word_embeddings=False, attention_bias=True, initializer_range=0.3,
                         bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + 0.1 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
    return model.eval()


def run(model):
    """Logits of all rows, and the mean loss over the labelled tokens of both sequences."""
    logits, total, n = [], 0, 0
    for ids, labels in zip(IDS, LABELS):
        z = model(input_ids=torch.tensor([ids])).logits[0]
        logits.append(z)
        target = torch.tensor(labels[1:])
        total = total + torch.nn.functional.cross_entropy(z[:-1], target, ignore_index=-100, reduction="sum")
        n += int((target != -100).sum())
    return torch.cat(logits), total / n


def disturb(model, wanted):
    g = torch.Generator().manual_seed(11)
    for name, p in model.named_parameters():
        if wanted(name):
            with torch.no_grad():
                p.add_(0.3 * torch.randn(p.shape, generator=g))


def with_peft(name, config, kind="base"):
    if not chosen(name):
        return
    model = peft.get_peft_model(base(kind), config)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    disturb(model, lambda n: n in trained)
    model.eval()
    folder = os.path.join(HERE, name)
    model.save_pretrained(folder)
    tidy(folder)
    write_expected(name, folder, model, kind)


def tidy(folder):
    os.remove(os.path.join(folder, "README.md"))
    path = os.path.join(folder, "adapter_config.json")
    with open(path) as f:
        text = json.load(f)
    text["base_model_name_or_path"] = None
    (text["modules_to_save"] or []).sort() # they are sets in peft
    with open(path, "w") as f:
        json.dump(text, f, indent=2, sort_keys=True)
        f.write("\n")


def write_expected(name, folder, model, kind="base"):
    logits, loss = run(model)
    model.zero_grad()
    loss.backward()
    out = {"logits": logits.detach(), "loss.task": loss.detach().reshape(1)}
    for n, p in model.named_parameters():
        if p.grad is not None:
            out["grad." + n.replace(".default", "").replace(".modules_to_save", "")] = p.grad.contiguous()
    tensors = load_file(os.path.join(folder, "adapter_model.safetensors"))
    assert all(k in tensors for k in (k[5:] for k in out if k.startswith("grad."))), name
    save_file(out, os.path.join(folder, "expected.safetensors"))
    merged = peft.PeftModel.from_pretrained(base(kind), folder).merge_and_unload()
    again, _ = run(merged)
    print(f"{name}: loss {loss.item():.6f}, merged differs by {(again - logits).abs().max().item():.2g}")


def with_ranks_taken_away():
    """AdaLoRA as peft writes it once ranks are off: one module has none left, one all; the scale is the start's."""
    if not chosen("adalora_taken"):
        return
    some = ["q_proj", "v_proj", "down_proj"]
    model = peft.get_peft_model(base(), peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, lora_alpha=6,
                                                           target_modules=some, task_type="CAUSAL_LM"))
    disturb(model, lambda n: "lora_" in n)
    masks, g = {}, torch.Generator().manual_seed(4)
    for n, p in model.base_model.model.named_parameters():
        if ".lora_E." in n:
            masks[n] = (torch.rand(4, generator=g) < 0.5).tolist()
    first, last = sorted(masks)[0], sorted(masks)[-1]
    masks[first], masks[last] = [False] * 4, [True] * 4
    model.peft_config["default"].rank_pattern = masks
    folder = os.path.join(HERE, "adalora_taken")
    model.save_pretrained(folder)
    tidy(folder)
    again = peft.PeftModel.from_pretrained(base(), folder, is_trainable=True)
    again.eval()
    write_expected("adalora_taken", folder, again)


class Bottleneck(torch.nn.Module):
    def __init__(self, width, inner, act):
        super().__init__()
        self.adapter_down = torch.nn.Sequential(torch.nn.Linear(width, inner))
        self.adapter_up = torch.nn.Linear(inner, width)
        self.act = act

    def forward(self, x):
        return self.adapter_up(self.act(self.adapter_down(x)))


def write_own(name, config, named, logits, loss):
    """The folder of a method that peft has not; loss.backward() has run."""
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")
    save_file({k: v.detach().contiguous() for k, v in named.items()},
              os.path.join(folder, "adapter_model.safetensors"))
    out = {"logits": logits.detach(), "loss.task": loss.detach().reshape(1)}
    out.update({"grad." + k: p.grad.contiguous() for k, p in named.items()})
    save_file(out, os.path.join(folder, "expected.safetensors"))
    print(f"{name}: loss {loss.item():.6f}")


def with_bottleneck(name, attention, after_sum, act, act_name, reduction=4):
    """houlsby: x + (f + A(f)) after attention and MLP; pfeiffer: (x + f) + A(x + f) after the MLP."""
    if not chosen(name):
        return
    model = base()
    width, inner = 16, 16 // reduction
    parts = {}
    for i in range(len(model.model.layers)):
        for place in (["self_attn.o_proj"] if attention else []) + ["mlp.down_proj"]:
            parts[f"model.layers.{i}.{place}"] = Bottleneck(width, inner, act)

    def block(i, layer):
        def forward(hidden_states, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False,
                    position_embeddings=None, **kwargs):
            x = hidden_states
            f, _ = layer.self_attn(hidden_states=layer.input_layernorm(x), attention_mask=attention_mask,
                                   position_ids=position_ids, position_embeddings=position_embeddings)
            if attention:
                f = f + parts[f"model.layers.{i}.self_attn.o_proj"](f)
            x = x + f
            f = layer.mlp(layer.post_attention_layernorm(x))
            return x + f + parts[f"model.layers.{i}.mlp.down_proj"](x + f if after_sum else f)
        layer.forward = forward

    for i, layer in enumerate(model.model.layers):
        block(i, layer)
    for p in model.parameters():
        p.requires_grad_(False)
    named = {f"base_model.model.{m}.{n}": p for m, a in parts.items() for n, p in a.named_parameters()}
    g = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in named.values():
            p.copy_(0.3 * torch.randn(p.shape, generator=g))
    logits, loss = run(model)
    loss.backward()
    write_own(name, {"base_model_name_or_path": None, "inference_mode": True, "non_linearity": act_name,
                     "peft_type": name.upper(), "reduction_factor": reduction,
                     "target_modules": (["down_proj", "o_proj"] if attention else ["down_proj"]), "task_type": "CAUSAL_LM"},
              named, logits, loss)


def with_bitfit(name, kind):
    """All biases and nothing else: not in peft."""
    if not chosen(name):
        return
    model = base(kind)
    for n, p in model.named_parameters():
        p.requires_grad_(n.endswith(".bias"))
    disturb(model, lambda n: n.endswith(".bias"))
    logits, loss = run(model)
    loss.backward()
    named = {"base_model.model." + n: p for n, p in model.named_parameters() if p.requires_grad}
    write_own(name, {"peft_type": "BITFIT", "target_modules": None, "task_type": "CAUSAL_LM"}, named, logits, loss)


def chosen(name):
    return len(sys.argv) < 2 or name in sys.argv[1:]


def main():
    os.makedirs(HERE, exist_ok=True)
    for kind in ("base", "gpt2"):
        if chosen(kind):
            base(kind).save_pretrained(os.path.join(HERE, kind))
            extra = os.path.join(HERE, kind, "generation_config.json")
            if os.path.exists(extra):
                os.remove(extra)
    some = ["q_proj", "v_proj", "down_proj"]
    common = {"task_type": "CAUSAL_LM"}
    with_peft("loha", peft.LoHaConfig(r=2, alpha=3, target_modules=some, **common))
    with_peft("lokr", peft.LoKrConfig(r=1, alpha=2, target_modules=some, decompose_both=True, **common))
    with_peft("lokr_full", peft.LoKrConfig(r=4, alpha=3, target_modules=some, decompose_factor=2, **common))
    with_peft("ia3", peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj", "o_proj"],
                                    feedforward_modules=["down_proj"], **common))
    with_peft("vera", peft.VeraConfig(r=5, target_modules=some, **common))
    with_peft("vera_key", peft.VeraConfig(r=3, target_modules=["q_proj", "k_proj"], save_projection=False,
                                          projection_prng_key=12345, **common))
    with_peft("lora_bias", peft.LoraConfig(r=2, lora_alpha=3, target_modules=some, bias="lora_only", **common))
    with_peft("vera_bias", peft.VeraConfig(r=5, target_modules=["q_proj"], bias="vera_only", **common))
    with_peft("gpt2_bias", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["c_attn", "c_fc"], bias="all", **common),
              "gpt2")
    with_peft("lora_save", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"],
                                           modules_to_save=["lm_head", "norm", "layers.0.mlp"], **common))
    save = {"modules_to_save": ["wte", "wpe", "attn.c_proj", "ln_f"], **common}
    with_peft("gpt2_save", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["c_fc"], bias="all", **save), "gpt2")
    with_peft("gpt2_tied", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["c_fc"], modules_to_save=["lm_head"],
                                           ensure_weight_tying=True, **common), "gpt2")
    with_peft("loha_save", peft.LoHaConfig(r=2, alpha=3, target_modules=["q_proj"],
                                           modules_to_save=["embed_tokens", "self_attn.v_proj"], **common))
    with_bitfit("gpt2_bitfit", "gpt2")
    with_peft("adalora", peft.AdaLoraConfig(init_r=3, target_r=2, total_step=9, lora_alpha=5, target_modules=some,
                                            **common))
    with_ranks_taken_away()
    with_bottleneck("houlsby", True, False, torch.nn.functional.silu, "swish")
    with_bottleneck("pfeiffer", False, True, torch.nn.functional.relu, "relu")
    print(sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(HERE) for f in fs), "bytes")


if __name__ == "__main__":
    main()
