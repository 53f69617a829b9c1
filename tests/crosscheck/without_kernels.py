"""Lets torchvision be imported beside a CPU torch: kernels that its wheel links to CUDA are missing, and not needed here.

Run as `python -m tests.crosscheck.without_kernels MODULE ARGUMENTS`, it runs a module of another library so.
"""

import runpy
import sys

import torch

_register = torch.library.register_fake


def _without_missing(name, *arguments, **keywords):
    return (lambda function: function) if str(name).startswith("torchvision::") else _register(name, *arguments, **keywords)


torch.library.register_fake = _without_missing

if __name__ == "__main__":
    module, sys.argv = sys.argv[1], sys.argv[1:]
    runpy.run_module(module, run_name="__main__")
