"""Prints the constants of tests/unit/test_adalora.c: which elements of E are 0 after each step of peft's RankAllocator,
with parameters and gradients by the formula below (the test has the same).  Run: python3 tests/peers/make_ranks.py
SPDX-License-Identifier: Apache-2.0"""
import torch
import peft
from peft.tuners.adalora.model import AdaLoraModel

SHAPES = [("model.layers.0.mlp.down_proj", 6, 10), ("model.layers.0.self_attn.q_proj", 12, 8)]


def number(site, tensor, j, step, kind):
    x = (site * 1000003 + tensor * 10007 + j * 101 + step * 7919 + kind * 31) * 2654435761 & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 2246822519 & 0xFFFFFFFF
    x ^= x >> 13
    return (x >> 8) / 2 ** 24 - 0.5


class Factors(torch.nn.Module):
    def __init__(self, out, inn, r):
        super().__init__()
        self.lora_A = torch.nn.ParameterDict({"default": torch.nn.Parameter(torch.zeros(r, inn))})
        self.lora_B = torch.nn.ParameterDict({"default": torch.nn.Parameter(torch.zeros(out, r))})
        self.lora_E = torch.nn.ParameterDict({"default": torch.nn.Parameter(torch.zeros(r, 1))})


def patterns(r, steps, **words):
    """One text a step: 1 where E is not 0, modules in the order of the test, a space between."""
    from peft.tuners.adalora.layer import RankAllocator
    model = torch.nn.Module()
    for name, out, inn in SHAPES:
        at = model
        for part in name.split(".")[:-1]:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        at.add_module(name.split(".")[-1], Factors(out, inn, r))
    config = peft.AdaLoraConfig(init_r=r, total_step=steps, **words)
    frame = AdaLoraModel.__new__(AdaLoraModel)
    torch.nn.Module.__init__(frame)
    frame.model, frame.peft_config, frame.trainable_adapter_name = model, {"default": config}, "default"
    frame.rankallocator = RankAllocator(model, config, "default")
    lines = []
    for step in range(1, steps + 1):
        line = []
        for i, (name, _, _) in enumerate(SHAPES):
            m = model.get_submodule(name)
            for k, p in enumerate((m.lora_A["default"], m.lora_B["default"], m.lora_E["default"])):
                p.data = torch.tensor([number(i, k, j, step, 0) for j in range(p.numel())]).reshape(p.shape)
                p.grad = torch.tensor([number(i, k, j, step, 1) for j in range(p.numel())]).reshape(p.shape)
        frame.update_and_allocate(step)
        for name, _, _ in SHAPES:
            line.append("".join("01"[int(e != 0)] for e in model.get_submodule(name).lora_E["default"].flatten()))
        lines.append(" ".join(line))
    return lines


for words in ({}, {"tinit": 2, "tfinal": 3, "deltaT": 2, "beta1": 0.5}, {"target_r": 1, "tfinal": 4, "beta2": 0.95}):
    print(words, peft.__version__)
    for line in patterns(5, 12, **{"target_r": 2, **words}):
        print(f'    "{line}",')
