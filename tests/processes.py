"""All processes, for tests that run on each of them, and a denoiser that is exact in each."""

from advdiff_jax.diffusion import schedules
from advdiff_jax.diffusion.parameterization import Denoised

CONTINUOUS = {
    "vp_linear": schedules.VPLinear(),
    "vp_cosine": schedules.VPCosine(),
    "sub_vp": schedules.SubVP(),
    "ve": schedules.VE(),
    "edm": schedules.EDM(),
    "flow": schedules.RectifiedFlow(),
}
ALL = CONTINUOUS | {"ddpm_grid": schedules.DDPMGrid()}


def independent_gaussians(schedule, variances):
    """Builds the exact denoiser of N(0, diag(variances)), variances [D] or a scalar; `diffusion.exact` is slow in many D."""

    def denoise(x, t):
        alpha, sigma = schedules.bcast(schedule.alpha(t), x), schedules.bcast(schedule.sigma(t), x)
        total = alpha**2 * variances + sigma**2
        return Denoised(alpha * variances / total * x, sigma / total * x)

    return denoise
