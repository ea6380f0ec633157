"""What torch itself makes of normalised layers, and a trainer's checkpoint: `python make_torch.py` writes the folder torch_layers/.

Made with torch 2.13.0.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import fusion, parametrizations, parametrize

HERE = Path(__file__).parent / "torch_layers"


class Positional(nn.Module):
    """wav2vec 2 has its norms along the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_conv_embed = nn.Module()
        self.pos_conv_embed.conv = nn.Conv1d(4, 6, 3)


class Block(nn.Module):
    """A part of torchvision's ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 2, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5)
        self.downsample = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.BatchNorm2d(5))
        self.fc = nn.Linear(5, 2)


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return model.eval()


def save(name: str, model: nn.Module) -> None:
    save_file({key: tensor.contiguous().clone() for key, tensor in model.state_dict().items()}, HERE / f"{name}.safetensors")


def weight_norm() -> None:
    net = nn.ModuleDict({"linear": nn.Linear(4, 3), "conv": nn.Conv1d(4, 3, 5), "up": nn.ConvTranspose1d(4, 3, 5), "image": nn.Conv2d(3, 2, 3)})
    net["wav2vec"] = Positional()
    layers = {name: layer for name, layer in net.named_modules() if hasattr(layer, "weight")}
    for name, layer in layers.items():
        parametrizations.weight_norm(layer, dim=2 if "pos_conv" in name else 0)
    save("weight_norm", randomised(net))
    for layer in layers.values():
        parametrize.remove_parametrizations(layer, "weight")
    save("weight_norm_folded", net)


def batch_norm() -> None:
    block = randomised(Block())
    save("batch_norm", block)
    for module, conv, norm in ((block, "conv1", "bn1"), (block, "conv2", "bn2"), (block.downsample, "0", "1")):
        setattr(module, conv, fusion.fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        delattr(module, norm)
    save("batch_norm_folded", block)


def trainer() -> None:
    net = randomised(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save("trained", net)
    averaged = {key: tensor / 2 for key, tensor in net.state_dict().items()}
    wrapped = {f"module.{key}": tensor for key, tensor in averaged.items()}
    state = {"epoch": 3, "state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "state_dict_ema": wrapped}
    torch.save(state, HERE / "trainer.pth.tar")
    save_file(averaged, HERE / "averaged.safetensors")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    weight_norm()
    batch_norm()
    trainer()
