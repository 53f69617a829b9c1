"""Makes torchvision importable beside torch's CPU build: import this module before torchvision, torch-fidelity or transformers.

The registry's torchvision holds its own operators in a library that needs CUDA. Without it torchvision still describes the
shapes of two of them, which have to exist for that. They are declared here, and have no implementation: no network needs them.
"""

import torch

if torch.version.cuda is None:
    LIBRARY = torch.library.Library("torchvision", "DEF")  # what it declares is gone when it is
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
