"""What PyTorch's own counter finds of a network, for tests of our figures."""

import torch
from torch.utils.flop_counter import FlopCounterMode


def counted(network, images, backward=False):
    """FLOPs; attention by matrix products, as fused kernels recompute some in the backward pass, or are not counted."""
    for block in network.blocks:
        block.attn.fused_attn = False
    with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
        logits = network(images)
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()
