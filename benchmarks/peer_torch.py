"""The side of torch and diffusers in `benchmarks.peer`: runs in an environment of its own, asked line by line for timings.

A request is one line of JSON, the name and the arguments of a function of OPERATIONS; the answer is one line of JSON.
"""

import functools
import json
import os
import sys

import diffusers
import torch
from diffusers.models.attention_processor import Attention

import benchmarks

RHO, BIAS, LAMBDA = 2.0, 8 / 255, 0.3  # the paper's radius and weight
STEP_SIZE = 1.25  # of FGSM over the radius


def build_network(size, channels, base_channels, channel_mults, res_blocks, attention_resolutions):
    """Builds the DDPM network of google/ddpm-cifar10-32, in these sizes."""
    attends = [size // 2**level in attention_resolutions for level in range(len(channel_mults))]
    return diffusers.UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        freq_shift=1,
        flip_sin_to_cos=False,
        down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        block_out_channels=tuple(base_channels * mult for mult in channel_mults),
        layers_per_block=res_blocks,
        attention_head_dim=None,
        downsample_padding=0,
        norm_eps=1e-6,
    )


def parameters(network):
    """Returns the number of parameters."""
    return sum(one.numel() for one in build_network(**network).parameters())


def _update(params):
    """Builds update(): bound on the gradient norm, Adam, average of the parameters."""
    optimizer = torch.optim.Adam(params, lr=1e-4, fused=True)
    averages = [one.detach().clone() for one in params]

    def update():
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        torch._foreach_lerp_(averages, [one.detach() for one in params], 1e-4)

    return update


def step(variant, batch, network):
    """Builds a training step of `ddpm` or `robust_adv`, on images of a constant grey."""
    module = build_network(**network)
    params = list(module.parameters())
    update = _update(params)
    images = torch.zeros((batch, network["channels"], network["size"], network["size"]), dtype=torch.uint8)
    kept = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, 1000), 0)

    def mean_square(x):
        return x.square().flatten(1).mean(1)

    def loss():
        x0 = images / 127.5 - 1.0
        t = torch.randint(0, 1000, (batch,))
        alpha, sigma = (x.sqrt()[t].view(-1, 1, 1, 1) for x in (kept, 1.0 - kept))
        eps = torch.randn_like(x0)
        x = alpha * x0 + sigma * eps
        prediction = module(x, t).sample
        denoising = mean_square(prediction - eps)
        if variant == "ddpm":
            return denoising.mean()
        radius = sigma**RHO + BIAS
        delta = (radius * (2.0 * torch.rand_like(x) - 1.0)).requires_grad_()
        ascent = mean_square(module(x + delta, t).sample - prediction.detach()).sum()
        (gradient,) = torch.autograd.grad(ascent, delta)
        delta = torch.clamp(delta.detach() + STEP_SIZE * radius * gradient.sign(), -radius, radius)
        residual = mean_square(module(x + delta, t).sample - (prediction + delta / sigma))
        return (denoising + LAMBDA * 3.0**0.5 / radius.flatten() * residual).mean()

    def run():
        for one in params:
            one.grad = None
        loss().backward()
        update()

    return run


def network(what, batch, network):
    """Builds the network's forward pass, or a forward pass with the gradient for its input or for its parameters."""
    module = build_network(**network)
    x = torch.randn(batch, network["channels"], network["size"], network["size"])
    t = torch.randint(0, 1000, (batch,))
    if what == "forward":
        return torch.no_grad()(lambda: module(x, t).sample)
    wanted = [x.requires_grad_()] if what == "input gradient" else list(module.parameters())
    return lambda: torch.autograd.grad(module(x, t).sample.square().sum(), wanted)


def convolution(what, batch, size, inputs, outputs):
    """Builds a 3x3 convolution or one of its two gradients."""
    x, out = torch.randn(batch, inputs, size, size), torch.randn(batch, outputs, size, size)
    kernel = torch.randn(outputs, inputs, 3, 3)
    if what == "forward":
        return lambda: torch.nn.functional.conv2d(x, kernel, padding=1)
    mask = (what == "input gradient", what == "kernel gradient", False)
    geometry = (1, 1), (1, 1), (1, 1), False, (0, 0), 1
    return lambda: torch.ops.aten.convolution_backward(out, x, kernel, None, *geometry, mask)


def layer(what, batch, size, channels):
    """Builds a forward pass and all gradients of silu, of GroupNorm with silu, or of self-attention with its norm."""
    module = {
        "silu": torch.nn.SiLU,
        "norm and silu": lambda: torch.nn.Sequential(torch.nn.GroupNorm(32, channels), torch.nn.SiLU()),
        "attention": lambda: Attention(
            channels,
            heads=1,
            dim_head=channels,
            norm_num_groups=32,
            residual_connection=True,
            bias=True,
            upcast_softmax=True,
            _from_deprecated_attn_block=True,
        ),
    }[what]()
    x = torch.randn(batch, channels, size, size, requires_grad=True)
    wanted = [x, *module.parameters()]
    cotangent = torch.randn(x.shape)
    return lambda: torch.autograd.grad(module(x), wanted, cotangent)


def update(network):
    """Builds the update of all parameters."""
    params = list(build_network(**network).parameters())
    for one in params:
        one.grad = torch.randn_like(one)
    return _update(params)


OPERATIONS = {one.__name__: one for one in (step, network, convolution, layer, update)}


def main() -> None:
    """Answers requests until the input ends."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    @functools.lru_cache(maxsize=1)
    def built(request):
        name, *arguments = json.loads(request)
        call = OPERATIONS[name](*arguments)
        call()  # allocates
        return call

    for request in sys.stdin:
        name, *arguments = json.loads(request)
        answer = parameters(*arguments) if name == "parameters" else benchmarks.timed(built(request))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
