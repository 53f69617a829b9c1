"""All processes, for tests that run on each of them."""

from advdiff_jax.diffusion import schedules

CONTINUOUS = {
    "vp_linear": schedules.VPLinear(),
    "vp_cosine": schedules.VPCosine(),
    "sub_vp": schedules.SubVP(),
    "ve": schedules.VE(),
    "edm": schedules.EDM(),
    "flow": schedules.RectifiedFlow(),
}
ALL = CONTINUOUS | {"ddpm_grid": schedules.DDPMGrid()}
