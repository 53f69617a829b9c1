"""Every key of a run, once: its meaning, its units, and the source of its default.

Other files call `get_config(variant)` here and override what differs. `--config.a.b=value` overrides anything. A comment
`a | b | c` lists all names that a key takes; a test compares it with the registries in `advdiff_jax/builders`.
"""

import ml_collections

from configs.variants import with_variant

# Metrics of fidelity in the features of `evaluation.features`, which all configs of real images name.
FIDELITY = ("fd", "kid", "inception_score", "precision_recall", "density_coverage")


def improved_ddpm(config: ml_collections.ConfigDict) -> None:
    """Sets what the real data sets share: Improved-DDPM's network and training (openai/improved-diffusion, README), T = 1000.

    Improved-DDPM also learns the variance; the paper's objective predicts the noise alone.
    """
    config.data.flip = True  # the paper mirrors
    config.data.num_workers = 8
    config.diffusion.schedule = "vp_cosine"  # --noise_schedule cosine
    config.diffusion.grid_steps = 1000  # the paper's T; Improved-DDPM's images of 32 and 64 pixels have 4000
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
    config.sampling.variance = "large"  # --sigma_small False; fewer steps leave noise then, as in the paper
    config.sampling.steps = 1000  # the paper's longest; it also has 300 and 500
    config.sampling.batch_size = 64
    config.evaluation.metrics = (*FIDELITY, "memorization")
    config.evaluation.features = "inception"  # vgg16 where no evaluation.weights are named, with a line that says so
    config.evaluation.num_samples = 10_000


def finetune(config: ml_collections.ConfigDict) -> None:
    """Sets what robust fine-tuning of a trained model shares: the network is that of `config.init_from`.

    The batches are those of DDPM's own training (Ho et al. 2020, appendix B), and so is the average of the parameters, which is
    continued. The penalty's weight rises over the first tenth of the steps, because its gradient is large at a network that has
    never been asked for equivariance.
    """
    config.network.kind = "pretrained"
    config.data.flip = True
    config.data.num_workers = 8
    config.train.decay = "constant"
    config.train.warmup_steps = 1000
    config.train.ema_decay = 0.9999
    config.train.log_every = 500
    config.train.checkpoint_every = 5000
    config.robust.warmup_steps = 0.1
    config.robust.cut = config.data.get_ref("noise_std") / 2
    config.sampling.steps = 1000
    config.evaluation.metrics = (*FIDELITY, "memorization")
    config.evaluation.features = "inception"  # vgg16 where no evaluation.weights are named, with a line that says so
    config.evaluation.num_samples = 10_000


def full_attack(config: ml_collections.ConfigDict) -> None:
    """Sets the whole protocol of attacks on the trajectory; it costs some ten thousand times what the default costs."""
    config.evaluation.attack.update(
        {
            "samplers": ("ddim", "ddpm", "fresh_ddpm"),
            "balls": ("linf", "l2"),
            "times": (0.25, 0.5, 0.75),
            "objectives": ("violation", "x0hat", "end"),
            "kappas": (0.03, 0.1, 0.3, 1.0),
            "pgd_steps": (20, 200),
            "restarts": 5,
            "draws": 20,
            "steps": 20,
        }
    )


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    config.name = "default"  # names the run: runs/<name>-<variant> without --workdir
    config.variant = ""  # set by `variants.with_variant`; kept for reports
    config.seed = 0  # of initialisation, shuffling, noise and perturbations; data, sampling and evaluation follow until set
    # A model to start from: the workdir of a finished run, a folder in diffusers' layout, or Improved-DDPM's state dict (.pt).
    config.init_from = ""  # its path; of the same network, or with network.kind pretrained; set another seed, not data.seed
    # denoising | equivariance | invariance | jvp | at_diff | ddpm_ip | ambient_oracle | ambient_guess | ambient_blind |
    # discard_blind | ambient_equivariance | discard_equivariance (the penalty on top of the two) | gsure | ambient_mask | em |
    # em_blind
    config.objective = "denoising"  # one of these; the variant sets it
    config.criterion = "square"  # square | pseudo_huber | huber: loss of the denoising error

    # --- data: a clean source and its corruption ---------------------------------------------------------------------
    config.data = data = ml_collections.ConfigDict()
    # plane3d | mixture | gaussian | digits | photo_crops (of photographs in scikit-learn and scikit-image) | folder (of image
    # files, or a zip or tar of them) | array (.npy or .npz of images) | points (.npy or .npz of points [N, D]) | tfds |
    # record_dataset (an array_record that --mode=poison wrote) | linear_subspace (PCA of another source)
    data.source = "plane3d"  # one of these
    data.seed = config.get_oneway_ref("seed")  # of a synthetic training set and of the corruption; set it to compare on one set
    data.num_examples = 20_000  # size of a synthetic training set
    data.held_out = 0  # examples of the source, chosen by data.seed, that training never sees; 0: none
    data.half_width = 1.0  # plane3d: half the side of the square
    data.dim = 2  # mixture: dimension
    data.components = 8  # mixture: number of Gaussians
    data.spread = 1.0  # mixture: standard deviation of the means
    data.component_std = 0.05  # mixture: standard deviation of each Gaussian
    data.outlier_fraction = 0.0  # mixture: share of training points that are uniform in a cube of half-width 3 spread
    data.stds = (0.05, 0.1, 0.2, 0.5, 1.0)  # gaussian: standard deviation of each coordinate
    # images
    data.size = ml_collections.FieldReference(32, field_type=object)  # side in pixels, or (HEIGHT,WIDTH), after crop and resize
    data.channels = 3  # 1: grey, 3: RGB; images of other modes are converted
    data.crop = 0  # shorter side in pixels of the centred part, of the shape of data.size, that is kept; 0: all that fits
    data.pad = False  # an image that is smaller than data.size gets a black border, instead of being enlarged
    data.flip = False  # mirror each image with chance 1/2, drawn afresh at each visit
    data.value_range = ()  # (BLACK,WHITE) of files deeper than 8 bits and of arrays; (): found from the files, or an error
    data.path = ""  # folder, array, points, record_dataset: the folder or file
    data.array_key = ""  # array, points: name of the array in an .npz file; "": the only one that fits
    # none | alpha (pixels that are not opaque) | folder (black pixels of the file of the same name in data.mask_path) | nan (in
    # an array of floats)
    data.mask = "none"  # one of these: the pixels of folder and array that are not known
    data.mask_path = ""  # mask folder: the folder or archive of the masks, with the names and sizes of the images
    data.on_bad_image = "fail"  # fail | skip (with a warning that names them): images of a folder or of tfds that do not decode
    data.tfds_name = "cifar10"  # tfds: builder or builder/config
    data.split = "train"  # tfds: split, slices allowed
    data.data_dir = ""  # tfds: folder of the prepared sets; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
    data.manual_dir = ""  # tfds, --mode=prepare: folder of the raw archives under their upstream names; empty: download them
    data.check_archives = True  # tfds, --mode=prepare: compare the archives of manual_dir with TFDS's sizes and SHA-256 first
    data.base = "digits"  # linear_subspace: a name of data.source; its images are projected, at most data.num_examples of them
    data.subspace_dim = 8  # linear_subspace: dimension
    data.subspace_distribution = "projected"  # projected (images) | gaussian (with their mean and variances): linear_subspace
    # reading
    data.num_workers = 0  # processes that read and corrupt; 0: two threads, faster for sources in memory
    data.read_ahead = 8  # batches that each worker prepares ahead; 0, without workers: none, faster for points
    data.accept_changes = False  # resume a run although its data have changed since it began
    # source (8 bits for files and arrays, else float) | uint8 (corrupted images are clipped and rounded, as files are) | float
    # (neither: noise goes beyond black and white, as in an experiment that adds it to the floats)
    data.storage = "source"  # one of these: how the training set is stored
    # corruption of the training set, drawn once per example from (data.seed, index)
    data.fraction = 0.9  # p, chance that a training example is corrupted; 0.9 in the paper
    # gaussian | gaussian_range | uniform_outlier | foreign_outlier | poison | foreign_patch | salt_and_pepper |
    # missing_pixels | missing_block | blur | jpeg; the last six need images
    data.corruptions = ("gaussian",)  # any of these, applied in their order to each corrupted example
    # none | nl_means (non-local means) | wavelet (shrinkage) | mean_fill (the mean of the others in masked pixels) | inpaint (a
    # smooth surface in masked pixels): what is done to each training image before training, clean ones too
    data.restored_by = "none"  # one of these
    # Chance of each kind for a corrupted example: 0.05 under p = 0.9 is 4.5 % of the training set.
    data.chance = ml_collections.ConfigDict()
    data.chance.gaussian = 1.0  # noise of std data.noise_std
    data.chance.gaussian_range = 1.0  # noise of a std drawn per example
    data.chance.uniform_outlier = 1.0  # the example becomes pure noise
    data.chance.foreign_outlier = 1.0  # the example becomes one of another source
    data.chance.foreign_patch = 1.0  # a square of an example of another source
    data.chance.poison = 1.0  # the example becomes its poisoned version; name poison first
    data.chance.salt_and_pepper = 1.0  # black and white pixels
    data.chance.missing_pixels = 1.0  # mid-grey pixels
    data.chance.missing_block = 1.0  # a mid-grey square
    data.chance.blur = 1.0  # Gaussian
    data.chance.jpeg = 1.0  # compression
    data.noise_std = 0.1  # gaussian: std s in the data's units (images lie in [-1, 1]); 0.1 and 0.2 in the paper
    data.noise_std_min = 0.05  # gaussian_range: s ~ U[noise_std_min, noise_std_max], drawn per example
    data.noise_std_max = 0.2  # gaussian_range: the largest s
    data.foreign_source = "photo_crops"  # foreign_*: a name of data.source; its images take the shape of the own ones
    data.foreign_path = ""  # foreign_*: its data.path
    data.foreign_tfds_name = ""  # foreign_*: its data.tfds_name
    data.patch_side = 0.25  # foreign_patch: side of the square over the image's shorter side
    data.poison_file = ""  # poison: path of the array_record that --mode=poison wrote
    data.salt_share = 0.1  # salt_and_pepper: share of the pixels
    data.missing_share = 0.5  # missing_pixels: share of the pixels, set to mid-grey
    data.block_side = 0.5  # missing_block: side of the mid-grey square over the image's shorter side
    data.blur_std = 1.0  # blur: standard deviation of the Gaussian in pixels
    data.jpeg_quality = 10  # jpeg: 1 (worst) to 95

    # --- poison: of --mode=poison, which alone reads this section ------------------------------------------------------
    config.poison = poison = ml_collections.ConfigDict()
    poison.checkpoint = ""  # workdir of the run whose network is attacked; required
    poison.radius = 16 / 255  # bound on each coordinate, in the data's units: 8 grey values of 255, the usual budget
    poison.ball = "linf"  # linf | l2 (||delta||_2 <= radius sqrt(D))
    poison.attack_steps = 10  # PGD steps
    poison.step_size = 0.25  # length of a step over the radius: 2.5 / attack_steps (Madry et al. 2018)
    poison.draws = 4  # draws of (t, eps) over which the loss is averaged
    poison.batch_size = 64  # examples attacked at once

    # --- classifier: of --mode=purify and --mode=certify ----------------------------------------------------------------
    config.classifier = classifier = ml_collections.ConfigDict()
    classifier.file = ""  # classifier.safetensors of an earlier purify or certify; "": trained on the clean training examples
    classifier.steps = 600  # its training steps, of 128 examples

    # --- purify: of --mode=purify; radii in units of [0, 1], half of the data's --------------------------------------------
    config.purify = purify = ml_collections.ConfigDict()
    purify.samplers = ("ddpm",)  # ddpm (the reverse SDE) | ddim (the ODE): any of these
    purify.balls = ("linf", "l2")  # linf | l2: any of these
    purify.linf_radii = (8 / 255,)  # linf: the largest shift of a value
    purify.linf_times = (0.1,)  # linf: t*, to which noise is added; DiffPure's for 8 / 255
    purify.l2_radii = (0.5,)  # l2: the length of the shift
    purify.l2_times = (0.075,)  # l2: t*; DiffPure's for 0.5
    purify.steps = 9  # steps of the sampler from t* to 0; the gradient of a square number compiles fastest
    purify.attack_steps = 20  # PGD steps
    purify.draws = 8  # draws of the noise over which the attacker averages, and as many others on which it is judged
    purify.examples = 64  # images, held out where data.held_out allows
    purify.batch_size = 64  # of them at once

    # --- certify: of --mode=certify; stds and radii in units of [0, 1], half of the data's ---------------------------------
    config.certify = certify = ml_collections.ConfigDict()
    certify.noise_stds = (0.25, 0.5, 1.0)  # std of the noise under which the classes are voted on
    certify.first_draws = 100  # draws that choose the class, N0
    certify.draws = 1000  # draws that bound its chance, N; 100,000 in the paper
    certify.failure = 0.001  # chance that the certificate of an image is wrong
    certify.radii = (0.0, 0.25, 0.5, 0.75, 1.0)  # L2 radii at which accuracy is reported
    certify.examples = 64  # images, held out where data.held_out allows
    certify.batch_size = 250  # draws at once

    # --- anomaly: of --mode=anomaly ---------------------------------------------------------------------------------------
    config.anomaly = anomaly = ml_collections.ConfigDict()
    anomaly.source = "photo_crops"  # of the planted patches: a name of data.source; its images take the shape of the own ones
    anomaly.path = ""  # its data.path
    anomaly.tfds_name = ""  # its data.tfds_name
    anomaly.patch_side = 0.25  # side of a planted square over the image's shorter side
    anomaly.examples = 128  # held-out images, every second with a patch
    anomaly.levels = (0.2, 0.5, 1.0, 2.0)  # sigma / alpha at t*, to the nearest of the sampler
    anomaly.draws = 4  # draws of the noise whose restorations are averaged
    anomaly.components = (4, 16)  # numbers of principal components of the training set, the rival

    # --- compare: of --mode=compare, which alone reads this section --------------------------------------------------
    config.compare = compare = ml_collections.ConfigDict()
    compare.runs = ""  # FOLDER,FOLDER,...: workdirs of finished runs, folders of evaluations, or folders of seed_0, seed_1, ...
    compare.metrics = ()  # names in results.json that are compared; (): all that rank runs

    # --- restore: of --mode=restore, which alone reads this section --------------------------------------------------
    config.restore = restore = ml_collections.ConfigDict()
    # A folder, an archive, .npy or .npz; fitted to the model's size as training images are. "held_out": those of data.held_out.
    restore.images = ""  # the dirty images; required
    restore.clean = ""  # the same images without dirt, by the same names, to measure the result; "": not known
    restore.count = 0  # evenly spaced ones of them; 0: all
    restore.value_range = ()  # as data.value_range, of these images
    restore.array_key = ""  # .npz: name of the array; "": the only one that fits
    # noise (nothing but noise) | alpha (pixels that are not opaque are missing) | folder (pixels that are black in the file of
    # the same name in restore.file are) | nan (pixels of an array of floats are) | blur (by the kernel in restore.file) |
    # k_space (frequencies that are black in restore.file are missing) | python (forward, and perhaps adjoint, in restore.file)
    restore.operator = "noise"  # one of these: what happened to the images, before noise
    restore.file = ""  # folder: folder or archive of masks; blur, k_space: an .npy file or a grey image; python: a .py file
    # std in the data's units (images: [-1, 1]) | "measured" (in each image, as --mode=noise does)
    restore.noise_std = ml_collections.FieldReference("measured", field_type=object)  # one of these: the noise in the images
    # moments | dps | a_dps (for models that are given a mask) | sdedit | one_step | final (for models whose training data have
    # as much noise) | nl_means | wavelet | inpaint | wiener; the last four need no model
    restore.method = "moments"  # one of these; its images are written
    restore.beside = ()  # others for the table, each a name of restore.method; (): those without a model that fit the operator
    restore.draws = 4  # moments, dps, a_dps, sdedit: draws for each image; their mean is the result
    # A plain model takes clipped noise for content.
    restore.unclip = True  # images of 8 bits: each draw goes on beyond black and white by noise that was clipped there
    restore.steps = 50  # of a draw, on the grid of EDM down to 0
    restore.cg_steps = 3  # moments: steps of conjugate gradients, each a backward pass
    restore.zeta = 1.0  # dps, a_dps: length of the gradient step; 1 in DPS
    restore.shown = 8  # images in the report

    # --- diffusion: x_t = alpha(t) x0 + sigma(t) eps ------------------------------------------------------------------
    config.diffusion = diffusion = ml_collections.ConfigDict()
    diffusion.schedule = "vp_linear"  # vp_linear | vp_cosine | vp_betas | sub_vp | ve (score_sde) | edm | flow (rectified flow)
    diffusion.grid_steps = 1000  # vp_*: T of DDPM's discrete grid; 0: continuous time, for all but vp_betas
    diffusion.beta_min = 0.1  # vp_linear, sub_vp: beta(0); 0.1 and T = 1000 make DDPM's 1e-4
    diffusion.beta_max = 20.0  # vp_linear, sub_vp: beta(1); DDPM's 0.02
    diffusion.cosine_offset = 0.008  # vp_cosine: s of Improved-DDPM
    diffusion.betas = ()  # vp_betas: DDPM's betas, grid_steps numbers
    diffusion.ve_sigma_min = 0.01  # ve: smallest noise, data units (score_sde)
    diffusion.ve_sigma_max = 50.0  # ve: largest noise; score_sde's for CIFAR-10
    diffusion.edm_sigma_min = 0.002  # edm: smallest noise sampled from, data units (EDM, table 1)
    diffusion.edm_sigma_max = 80.0  # edm: largest noise (EDM, table 1)
    diffusion.edm_log_mean = -1.2  # edm: mean of log sigma in training, P_mean
    diffusion.edm_log_std = 1.2  # edm: its standard deviation, P_std
    diffusion.flow_min_alpha = 1e-3  # flow: alpha(1), above 0 because pure noise has no estimate of x0
    diffusion.t_min = 1e-3  # continuous time, all but edm: smallest time of training and sampling
    diffusion.prediction = "eps"  # eps | x0 | v | score | flow (eps - x0) | edm (its preconditioning and loss weight)
    diffusion.data_std = 0.5  # prediction edm: standard deviation of the data, sigma_data
    diffusion.learn_variance = False  # Improved-DDPM: twice the output channels, L_hybrid; needs grid_steps
    diffusion.vlb_weight = 1e-3  # learn_variance: lambda of L_hybrid
    diffusion.vlb_bins = 0  # learn_variance: grey levels of images in [-1, 1], 256 for 8 bits; 0: continuous data

    # --- network ------------------------------------------------------------------------------------------------------
    config.network = network = ml_collections.ConfigDict()
    network.kind = "mlp"  # mlp (points) | unet (images) | pretrained (that of init_from, with its process)
    network.dtype = "float32"  # of activations: float32 | bfloat16; parameters, averages and losses stay float32
    # step (t minus the smallest time: DDPM's n - 1 over T) | t | log_noise (EDM's c_noise = log(sigma / alpha) / 4) |
    # ddpm_index (n - 1 itself, on DDPM's grid: what imported models see)
    network.time_input = "step"  # one of these: input of the time embedding
    network.time_scale = 1000.0  # factor on it; 1000 gives DDPM's time steps 0 .. 999
    network.width = 128  # mlp: units of a hidden layer
    network.depth = 3  # mlp: hidden layers
    network.time_features = 64  # mlp: width of the sinusoidal time embedding
    network.base_channels = 128  # unet: channels at full resolution (DDPM on CIFAR-10)
    network.channel_mults = (1, 2, 2, 2)  # unet: channels of each level over base_channels
    network.res_blocks = 2  # unet: residual blocks of a level
    network.attention_resolutions = (16,)  # unet: heights of levels with self-attention, each of an existing level
    network.heads = 4  # unet: attention heads
    network.dropout = 0.0  # unet: dropout rate in the residual blocks
    network.scale_shift = False  # unet: Improved-DDPM's scale-shift norm
    network.remat = False  # unet: the backward pass computes each block again instead of keeping it, for memory
    # unet: what the checkpoints of other libraries use, under diffusers' names
    # DownBlock2D | AttnDownBlock2D (with self-attention) | ResnetDownsampleBlock2D (with downsample_type resnet)
    network.down_block_types = ()  # any of these for each level, from full resolution; (): as attention_resolutions says
    # UpBlock2D | AttnUpBlock2D | ResnetUpsampleBlock2D
    network.up_block_types = ()  # any of these for each level, from the lowest resolution; (): as attention_resolutions says
    network.downsample_type = "conv"  # conv | resnet: a strided convolution; a mean of 2x2 pixels in a residual block
    network.upsample_type = "conv"  # conv | resnet: the nearest neighbour and a convolution; the same in a residual block
    network.downsample_padding = 1  # of the strided convolution: 1 on all sides; 0: below and on the right (DDPM)
    network.attention_head_dim = 0  # channels of a head; 0: there are network.heads heads
    network.add_attention = True  # self-attention in the middle
    network.norm_num_groups = 0  # groups of the norms; 0: 32, or fewer in narrow layers
    network.attn_norm_num_groups = 0  # groups of the norm before the middle's attention; 0: as the others; -1: no norm
    network.norm_eps = 1e-5  # epsilon of the norms; 1e-6 in DDPM
    network.flip_sin_to_cos = True  # the time embedding has its cosines first (Improved-DDPM), not its sines (DDPM)
    network.freq_shift = 0  # 1: its frequencies end at 1 / 10000 (DDPM)
    network.center_input_sample = False  # the network sees 2 x - 1

    # --- robust: the penalty of equivariance, invariance and jvp, and of *_blind_adv ------------------------------------
    config.robust = robust = ml_collections.ConfigDict()
    robust.radius = "state_units"  # state_units (fits the paper's table) | noise_units | constant; in VP units in any process
    robust.rho = 2.0  # r = sigma^rho + b, sigma of the VP process
    robust.bias_min = 8 / 255  # b ~ U[bias_min, bias_max] per example, in units of the radius
    robust.bias_max = robust.get_oneway_ref("bias_min")  # equal until set: no randomisation
    robust.constant = 8 / 255  # constant: r in VP state units
    robust.ball = "linf"  # linf | l2 (||delta||_2 <= r sqrt(D))
    robust.perturbation = "random"  # random | adversarial; the variant sets it
    # shift (the paper's J) | residual (of equivariance) | denoising (the denoising error at x_t + delta)
    robust.maximize = "shift"  # adversarial: one of these
    robust.attack_steps = 1  # adversarial: K ascent steps; 1 is the paper's FGSM
    robust.step_size = 0.0  # adversarial: length of a step over the radius; 0: the usual 1.25 for K = 1, 2.5 / K for more
    robust.random_start = True  # adversarial: start inside the ball; the gradient of J is zero at its centre
    # noise_units (eps moves by delta / sigma) | state_units (by delta: the literal reading of eq. 9, VP units)
    robust.target_shift = "noise_units"  # equivariance: one of these
    # paper (lambda sqrt(3) / r) | cutoff (kappa0 / (1 + (u / cut)^exponent), u = sigma / alpha) | adaptive (a cutoff at the
    # noise floor of robust.floor)
    robust.weight = "paper"  # one of these
    robust.lam = 0.3  # paper: lambda; 0.5 over-smooths
    # Well below the cut the model learns 1 / (1 + kappa0) of the variance. Criterion pseudo_huber strengthens the penalty where
    # the model explains no noise, because it weighs large errors less: 1.8 times for huber_c = 1, 13 times for 0.1.
    robust.kappa0 = 5.0  # cutoff, adaptive: strength
    robust.cut = 0.05  # cutoff: noise-to-signal ratio of the fall, in the data's units; best near half the noise's std
    robust.exponent = 4.0  # cutoff, adaptive: sharpness of the fall
    # 0.2 puts the cut at half the noise's std for data on a surface of few dimensions, and higher the more dimensions the
    # surface has (plane3d, two of three: at the std).
    robust.explained = 0.2  # adaptive: share of the noise variance that the model explains at the cut
    # trained (the level at which plain training explains that share) | measured (the same, and at least half of the std that is
    # found in the training images, as noise.file has it) | data (the latter alone; no plain training is needed)
    robust.floor = "measured"  # adaptive: one of these
    robust.warmup_steps = 0.0  # steps over which the weight rises linearly to its value; below 1: a share of all steps
    # the cost of the penalty
    robust.start_step = 0.0  # first step with the penalty, plain denoising before it; below 1: a share of all steps
    robust.lazy_interval = 1  # k: the penalty is applied every k-th step, scaled by k
    robust.group_size = 1  # m: the penalty is computed on one sampled example per group of m, and importance-weighted

    # --- baselines: the settings of other methods --------------------------------------------------------------------
    config.baselines = baselines = ml_collections.ConfigDict()
    baselines.updates = 3  # at_diff: K optimiser updates a batch; learning rate and decay follow the step
    baselines.adv_lr = 0.1  # at_diff: length of an ascent step, ||.||_2 over the example, VP state units
    baselines.max_norm = 0.1  # at_diff: ||delta||_2 <= sqrt(D) max_norm, VP state units
    baselines.gamma = 0.1  # ddpm_ip: std of the input perturbation over the noise's
    # constant | exponential (c0^t, t of the VP process) | snr ((1 - c0) / (1 + u)^2 + c0)
    baselines.huber_schedule = "exponential"  # criterion pseudo_huber, huber: one of these
    baselines.huber_c = 0.1  # criterion pseudo_huber, huber: c0, in units of the prediction
    baselines.guess = 1.0  # ambient_guess, gsure: assumed noise std of every example, over data.noise_std
    # ambient_oracle, ambient_guess: an example with noise of std s is used where sigma / alpha > (1 + margin) s
    baselines.margin = 0.05  # of ambient_blind: noise.margin
    # ambient_oracle, ambient_guess: weight of the consistency term, in units of x0, which teaches the levels below the noise
    # (arXiv 2404.10177); the sampler then goes to 0
    baselines.consistency = 0.0  # 0: no term; four times the cost of ddpm with it
    baselines.further = 0.1  # ambient_mask: chance that a known pixel is hidden from the network; it is judged on it
    # exact (s^2, Stein's lemma) | published ((1 - abar) Lambda, the authors' code)
    baselines.stein = "exact"  # gsure: one of these, the factor of the divergence
    baselines.stein_scale = 1e-4  # stein published: Lambda; the authors' value at s = 0.02

    # --- noise: what is measured in each example, for *_blind, *_blind_adv, robust.floor and sampling.final_denoise ---------
    config.noise = noise = ml_collections.ConfigDict()
    noise.file = ""  # noise.npz of --mode=noise for this training set; empty: measured when the run begins
    # 5, for images: large levels hide an error of s, and the mean that clipped noise has. 1.5 in the configs of points.
    noise.margin = 5.0  # ambient_blind, ambient_blind_adv: noise of std s: teaches where sigma / alpha > margin s
    # Below 50 clean examples: final (the model learns the noise too, and a final step removes it from samples) | lowest (each
    # example teaches above 1.05 times its own level, and the last sampling step goes from the lowest one to the estimate of x0)
    noise.without_clean = "final"  # ambient_blind, ambient_blind_adv: one of these
    # by the data, and by the model as trained until then: in small images it sees what the data alone do not tell
    noise.again = 0.5  # ambient_blind*, discard_blind*: share of the steps after which it is measured again; 0: never
    noise.again_share = 0.05  # of the run's network evaluations that this may take; a run that is too short does without
    noise.atypical_share = 0.05  # --mode=noise with a model: share of the most atypical examples, which atypical.npz leaves out

    # --- em: laps of drawing a clean training set and training on it, for em and em_blind; see docs/neighbours.md ----------
    config.em = em = ml_collections.ConfigDict()
    em.laps = 4  # laps after the first model; each draws, then trains for train.steps (of a budget: for budget_evaluations)
    # sde (reverse process from each example's own noise level) | ode (its probability flow) | moments (posterior samples by
    # DiEM; takes masks) | dps (diffusion posterior sampling; takes masks, and follows noise)
    em.e_step = "sde"  # one of these
    # dirty (a model of the data as they are: trained first, or that of init_from) | clean (trained on the clean examples alone)
    # | gaussian (fitted, without a network)
    em.start = "dirty"  # one of these: the first model
    # sde, ode: from the noise level of an example to 0, moments, dps: from pure noise; n of sde lose 3 / n of the variance
    em.steps = 50  # steps of a draw
    em.cg_steps = 1  # e_step moments: iterations of conjugate gradients; 1 in DiEM on CIFAR-10
    em.zeta = 1.0  # e_step dps: length of the gradient step, VP state units; no source fixes it, so try several
    em.gaussian_steps = 100  # start gaussian: laps of its fit

    # --- training -----------------------------------------------------------------------------------------------------
    config.train = train = ml_collections.ConfigDict()
    train.steps = 4000  # steps, a batch each
    # A network evaluation is a forward pass of one example, or a backward pass to its input; a full backward pass is two.
    train.budget_evaluations = 0  # sets train.steps to the number that this budget pays for; 0: no budget
    train.batch_size = 512  # over all devices of all processes, and divisible by their number
    train.accumulate = 1  # micro-batches in which a device computes its share of the batch, one after the other, to save memory
    train.learning_rate = 2e-3  # peak, Adam
    train.beta1 = 0.9  # Adam
    train.beta2 = 0.999  # Adam
    train.warmup_steps = 100  # linear warm-up of the learning rate
    train.decay = "cosine"  # cosine (to 0 at train.steps) | constant; after the warm-up
    train.clip_norm = 1.0  # bound on the global gradient norm, because the penalty's weight grows as t -> 0; 0: no bound
    train.max_skipped = 20  # updates in a row that are skipped, because they are not finite, before the run stops as diverged
    train.accept_changes = False  # resume an unfinished run with another learning_rate or clip_norm
    train.ema_decay = 0.999  # decay of the averaged parameters, which draw the samples
    train.more_ema_decays = ()  # decays of further averages; sampling.ema_decay chooses one after training
    train.log_every = 100  # steps between two rows of metrics.jsonl, each a mean over them
    train.checkpoint_every = 1000  # steps between checkpoints; the last step is always saved
    train.keep_checkpoints = 2  # number of checkpoints kept; older ones are removed
    train.keep_every = 0  # checkpoints of every such step are kept as well, for ever; 0: none
    train.sample_every = 0  # steps between images of samples while training; 0: at the end only
    train.sample_count = 64  # samples in each of these images

    # --- sampling -----------------------------------------------------------------------------------------------------
    config.sampling = sampling = ml_collections.ConfigDict()
    sampling.method = "ddpm"  # ddpm | ddim | euler_maruyama | predictor_corrector | euler | heun | dpm_solver_2m | ode
    sampling.grid = "uniform"  # uniform (in t) | log_snr | edm (its rho grid) | respaced (Improved-DDPM)
    sampling.steps = 250  # steps of the grid; uniform: at most grid_steps; ddpm with 100 loses 3 % of the spread of plane3d
    sampling.respacing = "ddim50"  # respaced: "ddimN", or counts of even parts of DDPM's grid, "50,25"
    sampling.rho = 7.0  # grid edm: exponent (EDM, eq. 5)
    sampling.variance = "small"  # small (posterior) | large (forward process) | learned (needs learn_variance): ddpm
    sampling.eta = 0.0  # ddim: 0 is deterministic, 1 has the noise of ddpm
    sampling.snr = 0.16  # predictor_corrector: signal-to-noise ratio of a Langevin step (score_sde, CIFAR-10)
    sampling.corrections = 1  # predictor_corrector: Langevin steps at each time
    sampling.churn = 0.0  # euler, heun: S_churn of EDM; 0: deterministic; 40 in EDM on ImageNet-64
    sampling.churn_min = 0.05  # euler, heun: S_tmin, in sigma / alpha (EDM, ImageNet-64)
    sampling.churn_max = 50.0  # euler, heun: S_tmax, in sigma / alpha
    sampling.churn_noise = 1.003  # euler, heun: S_noise
    sampling.rtol = 1e-4  # ode, and the metric likelihood: relative tolerance of a step
    sampling.atol = 1e-4  # ode, and the metric likelihood: absolute tolerance
    sampling.clip = 0.0  # clips the estimate of x0 to [-clip, clip]; 1 for 8-bit images, which hold no more; 0: no clipping
    # The model's own denoiser, applied once to the samples of a model of noisy data: no retraining. It removes noise of this
    # std. "measured": that in the training set, as noise.file has it. "learnt": the same where ambient_blind found fewer
    # than 50 clean examples and learnt the noise, and from each sample its own level; else none.
    sampling.final_denoise = ml_collections.FieldReference(0.0, field_type=object)  # 0: no such step
    sampling.final_level = 0.0  # final_denoise: sigma / alpha of the step; 0: that std, or half for points and below 16 pixels
    sampling.final_draws = 8  # final_denoise: draws of the noise of that level, over which the step is averaged
    sampling.final_random = False  # final_denoise: draws from the clean data in place of means, by 7 evaluations a sample
    sampling.final_own = False  # final_denoise: from each sample its own level, as the same draws tell it, at most that std
    sampling.png = False  # images: also write each sample as a numbered PNG, beside samples.npz
    sampling.batch_size = 2000  # samples drawn at once on each device
    sampling.seed = config.get_oneway_ref("seed")  # of the starts x_1 and the noise of the sampler
    sampling.ema_decay = 0.0  # the average that draws: a decay in train.more_ema_decays; 0: that of train.ema_decay

    # --- evaluation ---------------------------------------------------------------------------------------------------
    config.evaluation = evaluation = ml_collections.ConfigDict()
    # plane | subspace | wasserstein | score_error | likelihood | noise_energy | fd | kid | inception_score | precision_recall |
    # density_coverage | proximal_fd | memorization
    evaluation.metrics = ("plane", "wasserstein", "score_error")  # any of these that the data allow
    # gain (measured on each direction of the data, beside the closed form) | overfitting (of adversarial variants: the penalty
    # under stronger ascents, which detects catastrophic overfitting) | similarity (to the nearest training example, in
    # features) | noise_levels (of samples and training set, without clean data) | denoising (quality of a round trip, over t*)
    # | attack (on the sampling trajectory) | local_gain (of x0hat over t) | few_steps (a metric over network evaluations) |
    # foreign (images of another source: how many are drawn, and which the loss names)
    evaluation.diagnostics = ("gain", "overfitting")  # any of these; () in long lists of runs
    evaluation.seed = config.get_oneway_ref("seed")  # of the clean draws and probes that samples and model meet
    evaluation.num_samples = 2000  # samples drawn for the metrics
    evaluation.w2_points = 2000  # wasserstein: points compared at once; more samples are compared in parts
    evaluation.score_range = (0.01, 10.0)  # score_error: noise levels sigma / alpha, in the data's units
    evaluation.score_levels = 16  # score_error: how many, even in the logarithm
    evaluation.field_levels = (0.05, 0.2, 0.8)  # sigma / alpha of the drawn score fields; (): no fields, no paths
    evaluation.likelihood_points = 500  # likelihood: clean points
    evaluation.likelihood_probes = 1  # likelihood: Hutchinson probes above 16 dimensions
    evaluation.likelihood_bin = 1.0  # likelihood: width of a grey level, 2 / 255 for 8-bit images; 1: a density
    evaluation.noise_directions = 24  # noise_energy: how many directions of smallest clean variance
    # A network that is linear within the radius has 1, a good one a little more, one that bends where FGSM ends several.
    evaluation.overfitting_ratio = 2.0  # overfitting: warn above this ratio of the penalty, PGD over FGSM
    evaluation.proximal_std = 0.0  # proximal_fd: std of the noise that samples get; 0: as read in the training set
    evaluation.duplicate_rate = 0.01  # similarity: share of fresh examples above the bound on near duplicates
    evaluation.reading_level = 0.2  # noise_levels, proximal_fd: sigma / alpha at which the model reads noise; near its std
    evaluation.reading_draws = 4  # noise_levels, proximal_fd: draws of the noise that is added for that reading
    evaluation.denoising_levels = (0.05, 0.1, 0.2, 0.4, 0.8)  # denoising: sigma / alpha at t*, to the nearest of the sampler
    evaluation.denoising_examples = 128  # denoising: corrupted images, held out where data.held_out allows
    evaluation.samples = ""  # --mode=evaluate: folder, archive, .npy or .npz of images to judge instead of the run's samples
    evaluation.reference = ""  # .npz of --mode=reference, pytorch-fid or ADM to compare with; "": the clean training images
    evaluation.bootstrap = 20  # fd: draws of the samples for its standard error; 0: none
    evaluation.nearest_k = 5  # precision_recall, density_coverage: neighbours of a ball; 3 in Kynkaanniemi et al. 2019
    evaluation.max_neighbours = 10_000  # precision_recall, density_coverage: samples and clean examples; time is quadratic
    evaluation.features_batch = 128  # images that the feature network sees at once, over all devices of a process
    # digits_cnn (8x8 digits) | alexnet | vgg16 (ImageNet, any images) | inception (FID's own) | dinov2 (ViT-S, B or L): any
    # images, the last two from evaluation.weights
    evaluation.features = "digits_cnn"  # one of these: feature network of fd
    evaluation.weights = ""  # inception, dinov2: file (.safetensors; .pth needs torch), or a URL; docs/evaluation.md names them
    evaluation.weights_sha256 = ""  # inception, dinov2: SHA-256 that the file must have; a URL needs it; empty: not checked
    evaluation.cache_dir = ""  # folder of feature networks; empty: $XDG_CACHE_HOME/advdiff_jax or ~/.cache/advdiff_jax
    data.cache_dir = evaluation.get_oneway_ref("cache_dir")  # folder: where the findings of its check are kept
    evaluation.max_reference = 50_000  # largest number of clean and of dirty examples that a metric reads; memorization: all
    evaluation.grid = 64  # images (or points / 30) in a figure

    # attack: the network evaluations that these settings cost are in the log before it begins; `full_attack` sets the protocol
    evaluation.attack = ml_collections.ConfigDict()
    # ddim (eta = 0) | ddpm (the attacker knows the noise) | fresh_ddpm (it does not, and averages over draws of it)
    evaluation.attack.samplers = ("ddim",)  # any of these, with attack.steps on sampling.grid
    evaluation.attack.balls = ("linf",)  # linf | l2 (||delta||_2 <= kappa sigma sqrt(D)): any of these
    # start (x_1) | time (one time, each of attack.times) | every (each step)
    evaluation.attack.threats = ("start", "time", "every")  # any of these: where the state is shifted
    evaluation.attack.times = (0.5,)  # time: t*, to the nearest time of the sampler
    # violation (of equivariance, at each state) | x0hat (its distance to that of the path without attack) | end (the sample's)
    evaluation.attack.objectives = ("x0hat", "end")  # any of these; the worst is taken for each example
    evaluation.attack.kappas = (0.1, 0.3, 1.0)  # budgets of a shift, over sigma(t)
    evaluation.attack.pgd_steps = (10,)  # ascent steps of PGD; with several the largest number gives the results
    evaluation.attack.restarts = 1  # random starts of each ascent, of which the worst is taken
    evaluation.attack.draws = 5  # fresh_ddpm: draws of the noise, and as many others on which the attack is judged
    evaluation.attack.steps = 10  # sampling steps
    evaluation.attack.examples = 64  # samples that are attacked
    evaluation.attack.batch_size = 64  # of them at once
    evaluation.attack.huge = 10.0  # a budget over sigma(t) that must break every model, or the attack is not believed
    evaluation.local_gain = ml_collections.ConfigDict()
    evaluation.local_gain.levels = 16  # noise levels, even in the logarithm from the schedule's least to its largest
    evaluation.local_gain.iterations = 20  # steps of the power iteration
    evaluation.local_gain.examples = 64  # samples that are noised
    evaluation.foreign = ml_collections.ConfigDict()
    evaluation.foreign.levels = (0.2, 0.5, 1.0)  # sigma / alpha at which the loss of each training example is computed
    evaluation.foreign.draws = 4  # of the noise, for that loss
    # loss (the largest) | typicality (the least typical losses, small or large)
    evaluation.foreign.by = "typicality"  # one of these, by which examples are named as foreign
    evaluation.foreign.share = 0.1  # share of the training set that is named
    evaluation.few_steps = ml_collections.ConfigDict()
    evaluation.few_steps.samplers = ("ddpm", "ddim", "heun", "dpm_solver_2m")  # any names; a name of sampling.method
    evaluation.few_steps.steps = (5, 10, 20, 50)  # of each sampler
    evaluation.few_steps.metric = ""  # a number of evaluation.metrics; "": w2, fd_FEATURES or noise_energy, the first there is
    evaluation.few_steps.num_samples = 1000  # samples of each point

    return with_variant(config, variant).lock()  # a key that is not above is an error, in other files too
