"""From Hugging Face peft: read a stock LoRA, go on training it here, merge it, and write it back for stock peft.

Run: python docs/examples/from_peft.py --out runs/from_peft  (needs peft and timm)
"""

import argparse
from pathlib import Path

import peft
import timm
import torch
from torch import nn

from shared_peft import PeftModel


def base() -> nn.Module:
    """Return the same small ViT every time; in real use, timm.create_model(NAME, pretrained=True)."""
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=4).eval()


def main() -> None:
    """Take a stock adapter through a few steps of training here and back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/from_peft"))
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()

    config = peft.LoraConfig(r=4, target_modules=["qkv", "proj", "fc1", "fc2"], modules_to_save=["head"])
    peft.get_peft_model(base(), config).save_pretrained(str(arguments.out / "stock"))

    model = PeftModel.from_pretrained(base(), arguments.out / "stock").train()
    images, labels = torch.randn(8, 3, 160, 160), torch.arange(8) % 4
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(arguments.steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        print(f"step {step:2} loss {loss.item():.3f}")

    model.eval().save_pretrained(arguments.out / "back", stock=True)
    stock = peft.PeftModel.from_pretrained(base(), str(arguments.out / "back")).eval()
    plain = model.merge_and_unload()
    print(f"stock peft - merged model: {(stock(images) - plain(images)).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
