"""FP8 e4m3fn with one scale per 128x128 block, as in DeepSeek's checkpoints."""

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK, FP8_MAX = 128, 448.0


def quantize_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[..., out, in] -> FP8 codes and scales [..., ceil(out/128), ceil(in/128)]; ragged edges are padded with zeros."""
    rows, columns = weight.shape[-2:]
    padded = F.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    grid = padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))  # [..., R, 128, C, 128]
    scale = (grid.abs().amax(dim=(-3, -1), keepdim=True) / FP8_MAX).clamp_min(1e-12)
    codes = (grid / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    codes = codes.flatten(-4, -3).flatten(-2)[..., :rows, :columns]
    return codes.contiguous(), scale.squeeze(-1).squeeze(-2)


def dequantize_blocks(codes: Tensor, scale: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The weight: product in f32, rounded once to `dtype`."""
    rows, columns = codes.shape[-2:]
    spread = scale.repeat_interleave(BLOCK, -2)[..., :rows, :].repeat_interleave(BLOCK, -1)[..., :columns]
    return (codes.float() * spread).to(dtype)

