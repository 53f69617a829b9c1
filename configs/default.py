"""Every key of a run, once: what it means, in which units, and where its default comes from.

Other files call `get_config(variant)` here and override what differs. `--config.a.b=value` overrides anything.
"""

import ml_collections

from configs.variants import with_variant


def improved_ddpm(config: ml_collections.ConfigDict) -> None:
    """What the real data sets share: Improved-DDPM's network and training (openai/improved-diffusion, README), T = 1000.

    Improved-DDPM also learns the variance; the paper's objective, and this one, predicts the noise alone.
    """
    config.data.flip = True  # the paper mirrors
    config.data.num_workers = 8
    config.diffusion.schedule = "vp_cosine"  # --noise_schedule cosine
    config.diffusion.grid_steps = 1000  # the paper's T; Improved-DDPM's pictures of 32 and 64 pixels have 4000
    config.network.kind = "unet"
    config.network.base_channels = 128  # --num_channels 128
    config.network.res_blocks = 3  # --num_res_blocks 3
    config.network.heads = 4
    config.network.scale_shift = True
    config.train.batch_size = 128  # --batch_size 128
    config.train.learning_rate = 1e-4  # --lr 1e-4
    config.train.decay = "constant"
    config.train.warmup_steps = 1  # none
    config.train.ema_decay = 0.9999  # --ema_rate 0.9999
    config.train.log_every = 1000
    config.train.checkpoint_every = 10_000
    config.robust.cut = config.data.get_ref("noise_std") / 2  # robust_adv_cutoff: half the noise's std
    config.sampling.clip = 1.0
    config.sampling.steps = 1000  # the paper's longest; it also has 300 and 500
    config.sampling.batch_size = 64
    config.evaluation.metrics = ("noise_energy", "memorization")
    config.evaluation.num_samples = 10_000


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    config.name = "default"  # names the run: runs/<name>-<variant> without --workdir
    config.variant = ""  # set by `variants.with_variant`; kept for reports
    config.seed = 0  # seeds initialisation, shuffling, noise and perturbations; not the data (data.seed)
    config.init_from = ""  # workdir of a finished run of the same network: start from it; another seed sees other draws
    # denoising | equivariance | invariance | jvp | at_diff | ddpm_ip | ambient_oracle | ambient_guess
    config.objective = "denoising"  # one of these (set by the variant)
    config.criterion = "square"  # of the denoising error, in denoising, equivariance and invariance: square | pseudo_huber

    # --- data: a clean source and what is done to it ------------------------------------------------------------------
    config.data = data = ml_collections.ConfigDict()
    # plane3d | mixture | gaussian | digits | photo_crops (of photographs in scikit-learn and scikit-image) | folder (of PNG,
    # JPEG, WebP) | array (.npy or .npz of uint8) | tfds | stored (an array_record of ours) | linear_subspace (PCA of another)
    data.source = "plane3d"  # one of these
    data.seed = 0  # seeds the synthetic training set and its corruption, so that runs with other seeds share their data
    data.num_examples = 20_000  # size of a synthetic training set
    data.half_width = 1.0  # plane3d: half the side of the square
    data.dim = 2  # mixture: dimension
    data.components = 8  # mixture: number of Gaussians
    data.spread = 1.0  # mixture: standard deviation of the means
    data.component_std = 0.05  # mixture: standard deviation of each Gaussian
    data.outlier_fraction = 0.0  # mixture: share of training points that are uniform in a cube of half-width 3 spread
    data.stds = (0.05, 0.1, 0.2, 0.5, 1.0)  # gaussian: standard deviation of each coordinate
    # pictures
    data.size = 32  # side in pixels, after crop and resize (array: the side that it has)
    data.channels = 3  # 1: grey, 3: RGB; pictures of other modes are converted
    data.crop = 0  # side in pixels of the centred square that is kept before the resize; 0: the shorter side
    data.flip = False  # mirror every second picture, drawn afresh at each visit
    data.path = ""  # folder, array, stored: the folder or file
    data.on_bad_picture = "fail"  # fail | skip (named in a warning): folder, tfds: pictures that cannot be decoded
    data.tfds_name = "cifar10"  # tfds: builder or builder/config
    data.split = "train"  # tfds: split, slices allowed
    data.data_dir = ""  # tfds: where prepared sets are; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
    data.manual_dir = ""  # --mode=prepare: folder with the raw archives under their upstream names; empty: download them
    data.base = "digits"  # linear_subspace: the source whose pictures are projected (at most data.num_examples of them)
    data.components = 8  # linear_subspace: dimension
    data.subspace_law = "projected"  # linear_subspace: projected (pictures) | gaussian (of their mean and variances)
    # the way to the device
    data.num_workers = 0  # processes that read and corrupt; 0: two threads, best for sources in memory
    data.read_ahead = 8  # batches ready ahead (of each worker); 0, without workers: none, best for points
    # corruption of the training set; decided once an example by a hash of (data.seed, index)
    data.fraction = 0.9  # p, chance that a training example is corrupted; the paper's 0.9
    # gaussian | gaussian_range | uniform_outlier | foreign_outlier | poison; pictures also salt_and_pepper | missing_pixels |
    # missing_block | blur | jpeg
    data.corruptions = ("gaussian",)  # any of these, applied in this order to a corrupted example
    # The chance of each kind for an example that is corrupted at all: 0.05 under p = 0.9 is 4.5 % of the training set.
    data.chance = ml_collections.ConfigDict()
    data.chance.gaussian = 1.0  # noise of std noise_std
    data.chance.gaussian_range = 1.0  # noise of a std of its own
    data.chance.uniform_outlier = 1.0  # pure noise instead
    data.chance.foreign_outlier = 1.0  # an example of another source instead
    data.chance.poison = 1.0  # its poisoned version instead; name it first
    data.chance.salt_and_pepper = 1.0  # black and white pixels
    data.chance.missing_pixels = 1.0  # mid-grey pixels
    data.chance.missing_block = 1.0  # a mid-grey square
    data.chance.blur = 1.0  # Gaussian
    data.chance.jpeg = 1.0  # compression
    data.noise_std = 0.1  # s of gaussian, in the data's units (pictures live in [-1, 1]); the paper's 0.1 and 0.2
    data.noise_std_min = 0.05  # gaussian_range: s ~ U[noise_std_min, noise_std_max], one draw an example
    data.noise_std_max = 0.2  # gaussian_range: the largest s
    data.foreign_source = "photo_crops"  # foreign_outlier: a source as in data.source, of the same shape
    data.foreign_path = ""  # foreign_outlier: its data.path
    data.foreign_tfds_name = ""  # foreign_outlier: its data.tfds_name
    data.poison_file = ""  # poison: the array_record that --mode=poison wrote
    data.salt_share = 0.1  # salt_and_pepper: share of the pixels
    data.missing_share = 0.5  # missing_pixels: share of the pixels, set to mid-grey
    data.block_side = 0.5  # missing_block: side of the mid-grey square over the picture's
    data.blur_std = 1.0  # blur: standard deviation of the Gaussian in pixels
    data.jpeg_quality = 10  # jpeg: 1 (worst) to 95

    # --- poison: what --mode=poison writes (read by no other mode) ----------------------------------------------------
    config.poison = poison = ml_collections.ConfigDict()
    poison.checkpoint = ""  # workdir of the run whose network is attacked
    poison.radius = 16 / 255  # bound on each coordinate in the data's units: 8 grey values of 255, the usual budget
    poison.ball = "linf"  # linf | l2 (||delta||_2 <= radius sqrt(D))
    poison.attack_steps = 10  # PGD steps
    poison.step_size = 0.25  # length of a step over the radius: 2.5 over the steps (Madry et al. 2018); change it with them
    poison.draws = 4  # draws of (t, eps) over which the loss is averaged
    poison.batch_size = 64  # examples attacked at once

    # --- diffusion: x_t = alpha(t) x0 + sigma(t) eps ------------------------------------------------------------------
    config.diffusion = diffusion = ml_collections.ConfigDict()
    diffusion.schedule = "vp_linear"  # vp_linear | vp_cosine | sub_vp | ve (score_sde) | edm | flow (rectified flow)
    diffusion.grid_steps = 1000  # T of DDPM's discrete grid (vp_linear, vp_cosine); 0: continuous time, as the others need
    diffusion.beta_min = 0.1  # vp_linear, sub_vp: beta(0); 0.1 and T = 1000 make DDPM's 1e-4
    diffusion.beta_max = 20.0  # vp_linear, sub_vp: beta(1); DDPM's 0.02
    diffusion.cosine_offset = 0.008  # vp_cosine: s of Improved-DDPM
    diffusion.ve_sigma_min = 0.01  # ve: smallest noise, data units (score_sde)
    diffusion.ve_sigma_max = 50.0  # ve: largest noise; score_sde's for CIFAR-10
    diffusion.edm_sigma_min = 0.002  # edm: smallest noise sampled from, data units (EDM, table 1)
    diffusion.edm_sigma_max = 80.0  # edm: largest noise (EDM, table 1)
    diffusion.edm_log_mean = -1.2  # edm: mean of log sigma in training, P_mean
    diffusion.edm_log_std = 1.2  # edm: its standard deviation, P_std
    diffusion.flow_min_alpha = 1e-3  # flow: alpha(1); no estimate of x0 can be read from pure noise
    diffusion.t_min = 1e-3  # continuous time but edm: smallest time trained on and sampled from
    diffusion.prediction = "eps"  # eps | x0 | v | score | flow (eps - x0) | edm (its preconditioning and loss weight)
    diffusion.data_std = 0.5  # prediction edm: standard deviation of the data, sigma_data
    diffusion.learn_variance = False  # Improved-DDPM: twice the output channels, L_hybrid; needs grid_steps
    diffusion.vlb_weight = 1e-3  # learn_variance: lambda of L_hybrid
    diffusion.vlb_bins = 0  # learn_variance: levels of pictures in [-1, 1], 256 for 8 bits; 0: data without levels

    # --- network ------------------------------------------------------------------------------------------------------
    config.network = network = ml_collections.ConfigDict()
    network.kind = "mlp"  # mlp (points) | unet (pictures)
    network.dtype = "float32"  # compute dtype: float32 | bfloat16; parameters stay float32
    network.time_input = "t"  # t | log_noise (EDM's c_noise = log(sigma / alpha) / 4): what the time embedding sees
    network.time_scale = 1000.0  # times this; 1000 gives DDPM's time steps
    network.width = 128  # mlp: units of a hidden layer
    network.depth = 3  # mlp: hidden layers
    network.time_features = 64  # mlp: width of the sinusoidal time embedding
    network.base_channels = 128  # unet: channels at full resolution (DDPM on CIFAR-10)
    network.channel_mults = (1, 2, 2, 2)  # unet: channels of each level over base_channels
    network.res_blocks = 2  # unet: residual blocks of a level
    network.attention_resolutions = (16,)  # unet: heights of the feature maps with self-attention
    network.heads = 4  # unet: attention heads
    network.dropout = 0.0  # unet: dropout rate in the residual blocks
    network.scale_shift = False  # unet: Improved-DDPM's scale-shift norm

    # --- robust: the second term (read by equivariance, invariance, jvp) ------------------------------------------------
    config.robust = robust = ml_collections.ConfigDict()
    robust.radius = "state_units"  # state_units (the paper's table) | noise_units | constant; of the VP state in any process
    robust.rho = 2.0  # r = sigma^rho + b, sigma of the VP process
    robust.bias_min = 8 / 255  # b ~ U[bias_min, bias_max] per example, in the units of the radius
    robust.bias_max = robust.get_ref("bias_min")  # the same until set: no randomisation
    robust.constant = 8 / 255  # constant: r in VP state units
    robust.ball = "linf"  # linf | l2 (||delta||_2 <= r sqrt(D))
    robust.perturbation = "random"  # random | adversarial (set by the variant)
    # adversarial: shift (the paper's J) | violation (the second term itself) | denoising (the first term at x_t + delta)
    robust.maximize = "shift"  # one of these
    robust.attack_steps = 1  # adversarial: K; 1 is the paper's FGSM
    robust.step_size = 0.0  # adversarial: length of a step over the radius; 0: the habitual 1.25 for K = 1, 2.5 / K for more
    robust.random_start = True  # adversarial: start in the ball; the gradient of J is zero at its centre
    # paper: lambda sqrt(3) / r | cutoff: kappa0 / (1 + (u / cut)^exponent), u = sigma / alpha | adaptive: a cutoff that
    # follows the data's noise floor: the cut is where plain training tells a share `explained` of the noise
    robust.weight = "paper"  # one of these
    robust.lam = 0.3  # paper: lambda; 0.5 over-smooths
    # The variance is learnt as 1 / (1 + kappa0) of itself well below the cut. It acts more strongly under criterion
    # pseudo_huber, which weighs the first term less where the noise cannot be told: 1.8 times for huber_c = 1, 13 for 0.1.
    robust.kappa0 = 5.0  # cutoff, adaptive: strength
    robust.cut = 0.05  # cutoff: noise-to-signal ratio of the fall, in the data's units; best near half the noise's std
    robust.exponent = 4.0  # cutoff, adaptive: sharpness of the fall
    # 0.2 puts the cut at half the std of noise that fills all directions around data on a surface of few dimensions, and the
    # higher the more dimensions the surface has (plane3d, two of three: at the std).
    robust.explained = 0.2  # adaptive: share of the noise that is told at the cut
    # the cost of the term
    robust.start_step = 0.0  # first step with the term; below 1: a share of all steps; plain denoising before it
    robust.every = 1  # k: the term is in every k-th step, k times as heavy
    robust.one_in = 1  # m: the term is computed on one of each m examples, drawn where it is heavy, and stands for them

    # --- neighbours: each read by the variant that it names; huber_* by criterion pseudo_huber -----------------------
    config.neighbours = neighbours = ml_collections.ConfigDict()
    neighbours.updates = 3  # at_diff: K, updates of a batch; the learning rate is that of the step, and so is the decay
    neighbours.adv_lr = 0.1  # at_diff: length of an ascent step, ||.||_2 over the example, VP state units
    neighbours.max_norm = 0.1  # at_diff: ||delta||_2 <= sqrt(D) max_norm, VP state units
    neighbours.gamma = 0.1  # ddpm_ip: std of the input perturbation over the noise's
    # pseudo_huber: constant | exponential (c0^t, t of the VP process) | snr ((1 - c0) / (1 + u)^2 + c0)
    neighbours.huber_schedule = "exponential"  # one of these
    neighbours.huber_c = 0.1  # pseudo_huber: c0, in units of the prediction
    neighbours.guess = 1.0  # ambient_guess: the noise that every example is taken to have, over data.noise_std
    neighbours.margin = 0.05  # ambient: an example of noise s is used where sigma / alpha > (1 + margin) s

    # --- training -----------------------------------------------------------------------------------------------------
    config.train = train = ml_collections.ConfigDict()
    train.steps = 4000  # steps, a batch each
    # A network evaluation is a forward pass of one example, or a backward pass to its input; a full backward pass is two.
    train.budget_evaluations = 0  # stop when so many are spent, instead of at train.steps; 0: no budget
    train.batch_size = 512  # over all devices of all processes; must be divisible by their number
    train.learning_rate = 2e-3  # peak, Adam
    train.beta1 = 0.9  # Adam
    train.beta2 = 0.999  # Adam
    train.warmup_steps = 100  # linear warm-up of the learning rate
    train.decay = "cosine"  # cosine (to 0 at train.steps) | constant, after the warm-up
    train.clip_norm = 1.0  # bound on the global gradient norm; the second term's weight grows as t -> 0
    train.ema_decay = 0.999  # of the averaged parameters, with which samples are drawn
    train.log_every = 100  # steps between two rows of metrics.jsonl, each a mean over them
    train.checkpoint_every = 1000  # steps between checkpoints; the last step is always saved
    train.keep_checkpoints = 2  # older ones are removed
    train.sample_every = 0  # steps between sample pictures while training; 0: only at the end

    # --- sampling -----------------------------------------------------------------------------------------------------
    config.sampling = sampling = ml_collections.ConfigDict()
    sampling.method = "ddpm"  # ddpm | ddim | euler_maruyama | predictor_corrector | euler | heun | dpm_solver_2m | ode
    sampling.grid = "uniform"  # uniform (in t) | log_snr | edm (its rho grid) | respaced (Improved-DDPM); not read by ode
    sampling.steps = 250  # of the grid; uniform: at most grid_steps; ddpm with 100 loses 3 % of the spread of plane3d
    sampling.respacing = "ddim50"  # respaced: "ddimN", or counts of even parts of DDPM's grid, "50,25"
    sampling.rho = 7.0  # grid edm: exponent (EDM, eq. 5)
    sampling.variance = "small"  # ddpm: small (posterior) | large (the forward process's) | learned (needs learn_variance)
    sampling.eta = 0.0  # ddim: 0 deterministic, 1 as noisy as ddpm
    sampling.snr = 0.16  # predictor_corrector: of a Langevin step (score_sde, CIFAR-10)
    sampling.corrections = 1  # predictor_corrector: Langevin steps at each time
    sampling.churn = 0.0  # euler, heun: S_churn of EDM; 0: deterministic; 40 in EDM on ImageNet-64
    sampling.churn_min = 0.05  # S_tmin, in sigma / alpha (EDM, ImageNet-64)
    sampling.churn_max = 50.0  # S_tmax, in sigma / alpha
    sampling.churn_noise = 1.003  # S_noise
    sampling.rtol = 1e-4  # ode: relative tolerance of a step
    sampling.atol = 1e-4  # ode: absolute tolerance
    sampling.clip = 0.0  # clip the estimate of x0 to [-clip, clip]; 1 for pictures; 0: not
    sampling.batch_size = 2000  # samples drawn at once on each device
    sampling.seed = 0  # seeds the sampler

    # --- evaluation ---------------------------------------------------------------------------------------------------
    config.evaluation = evaluation = ml_collections.ConfigDict()
    # plane | subspace | wasserstein | score_error | likelihood | noise_energy | fd | memorization
    evaluation.metrics = ("plane", "wasserstein", "score_error")  # any of those above that the data can have
    # Besides: transfer (measured gain on each direction of the data beside the closed form) | inner (ratios of the second
    # term under stronger ascents, of adversarial variants: the detector of catastrophic overfitting)
    evaluation.looks = ("transfer", "inner")  # any of these; () in long lists of runs
    evaluation.num_samples = 2000  # samples drawn for the metrics
    evaluation.w2_points = 2000  # w2, w2_floor: points compared at once; of more samples the root mean square over such parts
    evaluation.score_range = (0.01, 10.0)  # score_error: noise levels sigma / alpha, in the data's units
    evaluation.score_levels = 16  # score_error: how many, even in the logarithm
    evaluation.field_levels = (0.05, 0.2, 0.8)  # sigma / alpha at which a score field is drawn; (): no fields, no paths
    evaluation.likelihood_points = 500  # likelihood: clean points
    evaluation.likelihood_probes = 1  # likelihood: Hutchinson probes above 16 dimensions
    evaluation.likelihood_bin = 1.0  # likelihood: side of a level; 2 / 255 for 8-bit pictures; 1: a density
    evaluation.noise_directions = 24  # noise_energy: how many directions of smallest clean variance
    # adversarial: a warning where ten steps find so many times the second term that training sees. 1 on a network that is
    # linear within the radius, a little above it on a good one; a network that bends where FGSM ends shows several.
    evaluation.overfitting_ratio = 2.0  # second term under PGD over that under the configured perturbation
    evaluation.features = "digits_cnn"  # fd: feature network
    evaluation.cache_dir = ""  # of trained feature networks; empty: $XDG_CACHE_HOME/advdiff_jax or ~/.cache/advdiff_jax
    data.cache_dir = evaluation.get_ref("cache_dir")  # of the findings of a folder's check: the same place
    evaluation.max_reference = 50_000  # most examples of the clean and of the dirty set that a metric looks at
    evaluation.grid = 64  # pictures (or points / 30) shown in a grid

    return with_variant(config, variant).lock()  # a key that is not above is an error, in other files too
