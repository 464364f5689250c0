from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from relabel_store.errors import NoDenseMapError, NonFiniteLogitsError, TeacherError
from relabel_store.generate.dense import DenseClassifier, DenseKind, Variant, identity_error, make_dense
from relabel_store.generate.dense import head as head_module
from relabel_store.generate.dense.head import averaged

NUM_CLASSES = 11

# name, arguments of create_model, input size, grid
EXACT = {
    "efficientnet-nchw": ("tf_efficientnet_lite0", {}, (64, 96), (2, 3)),
    "resnet-nchw": ("test_resnet", {}, (64, 96), (2, 3)),
    "resnetv2-convolution": ("resnetv2_18", {}, (64, 64), (2, 2)),
    "regnet-nchw": ("regnetx_002", {}, (96, 64), (3, 2)),
    "byobnet-nchw": ("test_byobnet", {}, (64, 96), (2, 3)),
    "nfnet-nchw": ("test_nfnet", {}, (96, 96), (3, 3)),
    "mobilevit-nchw": ("mobilevit_xxs", {}, (64, 64), (2, 2)),
    "efficientvit-norm-head": ("efficientvit_m0", {}, (128, 128), (2, 2)),
    "repvit-two-heads": ("repvit_m1", {}, (64, 64), (2, 2)),
    "coatnet-nchw": ("test_coatnet", {"img_size": 64}, (64, 64), (2, 2)),
    "swin-nhwc": (
        "swin_tiny_patch4_window7_224",
        {"img_size": (64, 128), "window_size": 2, "embed_dim": 24, "depths": (1, 1, 1, 1)},
        (64, 128),
        (2, 4),
    ),
    "gmlp-tokens": ("gmlp_ti16_224", {"img_size": 64}, (64, 64), (4, 4)),
    "vit-average-tokens": (
        "test_vit",
        {"img_size": (64, 96), "class_token": False, "global_pool": "avg", "fc_norm": False},
        (64, 96),
        (4, 6),
    ),
    "vit-average-prefix": (
        "test_vit4",
        {"img_size": (96, 64), "fc_norm": False},
        (96, 64),
        (6, 4),
    ),
    "levit-two-heads": ("levit_128s", {}, (224, 224), (4, 4)),
}
PER_LOCATION = {
    "convnext-nchw": ("test_convnext", {}, (64, 96), (2, 3)),
    "mobilenetv3-nchw": ("mobilenetv3_small_050", {}, (64, 96), (2, 3)),
    "mambaout-nhwc": ("test_mambaout", {}, (64, 96), (2, 3)),
    "vit-fc-norm": ("test_vit2", {"img_size": (64, 96)}, (64, 96), (4, 6)),
    "hiera-tokens": ("hiera_tiny_224", {"img_size": 64, "stages": (1, 1, 1, 1)}, (64, 64), (2, 2)),
    "efficientvit-convolution-first": ("efficientvit_b0", {}, (64, 96), (2, 3)),
}
REFUSED = {
    "vit-class-token": ("test_vit", {"img_size": 64}, (64, 64), "a class token"),
    "deit-two-class-tokens": ("deit_tiny_distilled_patch16_224", {"depth": 1}, (224, 224), "a class token"),
    "pit-only-class-token": ("pit_ti_224", {}, (224, 224), "a class token"),
    "vit-attention-pooling": (
        "test_vit",
        {"img_size": 64, "class_token": False, "global_pool": "map"},
        (64, 64),
        "max or attention pooling",
    ),
    "vit-attention-over-prefix": ("test_vit3", {"img_size": 64}, (64, 64), "prefix tokens mixed"),
    "vit-average-over-prefix": (
        "test_vit",
        {"img_size": 64, "global_pool": "avg", "pool_include_prefix": True},
        (64, 64),
        "prefix tokens mixed",
    ),
    "max-pooling": ("test_resnet", {"global_pool": "max"}, (64, 64), "max or attention pooling"),
    "average-and-max": ("test_resnet", {"global_pool": "catavgmax"}, (64, 64), "max or attention pooling"),
    "list-of-features": ("efficientvim_m1", {}, (64, 64), "gives a list"),
    "no-classifier": ("test_resnet", {"num_classes": 0}, (64, 64), "num_classes is 0"),
}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def architecture(generator: torch.Generator) -> Callable[..., nn.Module]:
    """Make a timm model whose layers are all away from their initialisation."""

    def make(name: str, **settings: object) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = timm.create_model(name, **{"num_classes": NUM_CLASSES, **settings})
        perturb(model, generator)
        return model

    return make


def perturb(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            width = 0.1 if parameter.ndim < 2 else 0.02
            parameter.add_(width * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(0.1 * torch.randn(module.running_mean.shape, generator=generator))


def some_images(dense: DenseClassifier, generator: torch.Generator, n: int = 2) -> Tensor:
    return torch.randn((n, 3, *dense.input_size), generator=generator)


class Blocks(nn.Module):
    """Each block of 8 pixels is a cell, and the head is linear on their average. Odd ones override."""

    num_features = 12

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, self.num_features, 8, stride=8)
        self.classifier = nn.Linear(self.num_features, num_classes)

    def forward_features(self, images: Tensor) -> object:
        return self.widen(images)

    def forward_head(self, features: Tensor) -> object:
        return self.classifier(features.mean((2, 3)))

    def forward(self, images: Tensor) -> object:
        return self.forward_head(self.forward_features(images))


class ChannelsLastBlocks(Blocks):
    def forward_features(self, images: Tensor) -> Tensor:
        return self.widen(images).movedim(1, -1)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features.mean((1, 2)))


class TokenBlocks(Blocks):
    """Two prefix tokens, which nobody declares and the head leaves out."""

    def forward_features(self, images: Tensor) -> Tensor:
        cells = self.widen(images).flatten(2).movedim(1, -1)
        return torch.cat([cells.amax(1, keepdim=True), cells.amin(1, keepdim=True), cells], 1)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features[:, 2:].mean(1))


class InPlaceBlocks(Blocks):
    """Keeps its features, and its head destroys what it is given."""

    def forward_features(self, images: Tensor) -> Tensor:
        self.kept = self.widen(images).contiguous(memory_format=torch.channels_last)
        return self.kept

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features.mul_(2).mean((2, 3)))


class TwoHeadedBlocks(Blocks):
    def forward_head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(features.mean((2, 3)))
        return logits, logits.flip(1)


class ViewingBlocks(Blocks):
    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features.view(len(features), self.num_features, -1).mean(2))


class ConvolvingBlocks(Blocks):
    """Bends each cell, averages, bends the average."""

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(functional.adaptive_avg_pool2d(features.relu(), 1).relu_().flatten(1).exp())


class ClassTokenBlocks(TokenBlocks):
    """A head that reads the first token only: replayed, its map is constant and its mean is right."""

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features[:, 0])


class DeclaredOnlyPrefixBlocks(ClassTokenBlocks):
    num_prefix_tokens = 2

    def forward_features(self, images: Tensor) -> Tensor:
        return super().forward_features(images)[:, :2]


class AttentionAndAverageBlocks(Blocks):
    """Takes an average first, which a tap on averages must not mistake for all that the head sees."""

    def forward_head(self, features: Tensor) -> Tensor:
        cells = features.flatten(2)  # (n, c, cells)
        query = cells.mean(2, keepdim=True)
        weights = (query * cells).sum(1, keepdim=True).softmax(2)
        return self.classifier((weights * cells).sum(2))


class SpatialBlocks(Blocks):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(self.num_features * 6, 5)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features.flatten(1))


class WindowBlocks(Blocks):
    def forward_head(self, features: Tensor) -> Tensor:
        corner = features[..., :1, :1] if min(features.shape[2:]) < 2 else features[..., 1:, 1:]
        return self.classifier(corner.mean((2, 3)))


class SequenceBlocks(Blocks):
    """Features without a grid."""

    def forward_features(self, images: Tensor) -> Tensor:
        return self.widen(images).mean((2, 3))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features)


class WideBlocks(Blocks):
    """More channels than it says."""

    def forward_features(self, images: Tensor) -> Tensor:
        return torch.cat([self.widen(images)] * 2, 1)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features[:, : self.num_features].mean((2, 3)))


class UnevenTokenBlocks(TokenBlocks):
    """216 tokens, 20 more than a square and 9 less than the next."""

    def forward_features(self, images: Tensor) -> Tensor:
        return self.widen(images).flatten(2).movedim(1, -1).repeat(1, 54, 1)


class DictionaryBlocks(Blocks):
    def forward_features(self, images: Tensor) -> dict[str, Tensor]:
        return {"x": self.widen(images)}

    def forward_head(self, features: dict[str, Tensor]) -> Tensor:
        return self.classifier(features["x"].mean((2, 3)))


class UnpooledBlocks(Blocks):
    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features.movedim(1, -1))


class MixedHeadsBlocks(Blocks):
    def forward_head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(features.mean((2, 3))), features


class NoneBlocks(Blocks):
    def forward_head(self, features: Tensor) -> None:
        return None


class EncoderBlocks(Blocks):
    def forward_head(self, features: Tensor) -> Tensor:
        raise NotImplementedError("not a classifier")


class SoftmaxBlocks(Blocks):
    """More than its head."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class RecordingBlocks(Blocks):
    """Writes down what its head is given, and under which settings."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, bool, str | None]] = []

    def forward_head(self, features: Tensor) -> Tensor:
        matmul = getattr(torch.backends.mkldnn, "matmul", None)
        precision = None if matmul is None else matmul.fp32_precision
        self.seen.append((features.dtype, torch.is_autocast_enabled("cpu"), precision))
        return super().forward_head(features)


def blocks(kind: type[Blocks]) -> Blocks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return kind()


@pytest.mark.parametrize(("name", "settings", "size", "grid"), EXACT.values(), ids=EXACT)
def test_linear_head_on_average_is_exact(architecture, generator, name, settings, size, grid):
    dense = make_dense(architecture(name, **settings), input_size=size)
    images = some_images(dense, generator)
    assert dense.kind is DenseKind.EXACT
    assert (dense.grid, dense.num_classes, dense.input_size) == (grid, NUM_CLASSES, size)
    logits = dense.logits(images)
    assert (logits.shape, logits.dtype) == ((2, NUM_CLASSES, *grid), torch.float32)
    assert float(logits.std(dim=(2, 3)).min()) > 0
    assert identity_error(dense, images) < 1e-5


@pytest.mark.parametrize(("name", "settings", "size", "grid"), PER_LOCATION.values(), ids=PER_LOCATION)
def test_layers_after_average_are_per_location(architecture, generator, name, settings, size, grid):
    dense = make_dense(architecture(name, **settings), input_size=size)
    assert dense.kind is DenseKind.PER_LOCATION
    assert dense.grid == grid
    images = some_images(dense, generator)
    assert dense.logits(images).shape == (2, NUM_CLASSES, *grid)
    assert 1e-4 < identity_error(dense, images) < math.inf


@pytest.mark.parametrize(("name", "settings", "size", "reason"), REFUSED.values(), ids=REFUSED)
def test_other_heads_are_refused(architecture, name, settings, size, reason):
    with pytest.raises(NoDenseMapError, match=reason):
        make_dense(architecture(name, **settings), input_size=size)


def loop(
    model: nn.Module, images: Tensor, cut: Callable[[Tensor, int, int], Tensor], grid: tuple[int, int]
) -> Tensor:
    with torch.no_grad():
        features = model.forward_features(images)
        rows = [
            torch.stack([model.forward_head(cut(features, row, col)) for col in range(grid[1])], dim=-1)
            for row in range(grid[0])
        ]
    return torch.stack(rows, dim=-2)  # (n, num_classes, n_rows, n_cols)


CUTS = {
    "resnet-nchw": lambda f, row, col: f[:, :, row : row + 1, col : col + 1],
    "mobilenetv3-nchw": lambda f, row, col: f[:, :, row : row + 1, col : col + 1],
    "swin-nhwc": lambda f, row, col: f[:, row : row + 1, col : col + 1],
    "mambaout-nhwc": lambda f, row, col: f[:, row : row + 1, col : col + 1],
    "vit-average-tokens": lambda f, row, col: f[:, 6 * row + col : 6 * row + col + 1],
    "vit-average-prefix": lambda f, row, col: torch.cat([f[:, :-24], f[:, 4 * row + col - 24][:, None]], 1),
}


@pytest.mark.parametrize("case", CUTS)
def test_replay_equals_a_loop_over_cells(architecture, generator, case):
    name, settings, size, grid = (EXACT | PER_LOCATION)[case]
    model = architecture(name, **settings)
    dense = make_dense(model, input_size=size)
    images = some_images(dense, generator)
    torch.testing.assert_close(dense.logits(images), loop(model, images, CUTS[case], grid))


@pytest.mark.parametrize("case", ["resnet-nchw", "swin-nhwc", "vit-average-prefix", "vit-fc-norm"])
def test_chunks_do_not_change_the_replay(architecture, generator, monkeypatch, case):
    name, settings, size, _ = (EXACT | PER_LOCATION)[case]
    dense = make_dense(architecture(name, **settings), input_size=size)
    images = some_images(dense, generator, n=3)
    whole = dense.logits(images)
    monkeypatch.setattr(head_module, "REPLAY_CELLS", 5)
    torch.testing.assert_close(dense.logits(images), whole)


@pytest.mark.parametrize("case", ["resnet-nchw", "swin-nhwc", "vit-average-prefix", "convnext-nchw"])
def test_batch_of_one_equals_its_row_in_a_batch(architecture, generator, case):
    name, settings, size, _ = (EXACT | PER_LOCATION)[case]
    dense = make_dense(architecture(name, **settings), input_size=size)
    images = some_images(dense, generator, n=3)
    torch.testing.assert_close(dense.logits(images[1:2]), dense.logits(images)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["efficientnet-nchw", "swin-nhwc", "mobilenetv3-nchw"])
def test_channels_last_gives_the_same_logits(architecture, generator, case):
    name, settings, size, _ = (EXACT | PER_LOCATION)[case]
    model = architecture(name, **settings)
    dense = make_dense(model, input_size=size)
    images = some_images(dense, generator)
    logits = dense.logits(images)
    model.to(memory_format=torch.channels_last)
    again = make_dense(model, input_size=size)
    assert again.kind is dense.kind
    images = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(again.logits(images), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [Blocks, ChannelsLastBlocks, TokenBlocks])
@pytest.mark.parametrize("size", [(40, 64), (64, 40)], ids=["wide", "high"])
def test_cells_lie_where_the_image_has_their_pixels(kind, size):
    dense = make_dense(blocks(kind), input_size=size)
    assert dense.grid == (size[0] // 8, size[1] // 8)
    images = torch.zeros((1, 3, *size))
    images[:, :, 8:16, 24:32] = 1
    changed = (dense.logits(images) - dense.logits(torch.zeros_like(images))).abs().sum(dim=(0, 1))
    assert changed.nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize("kind", [Blocks, ChannelsLastBlocks])
def test_as_many_channels_as_columns_or_rows_are_told_apart(kind):
    for size, grid in [((96, 96), (12, 12)), ((40, 96), (5, 12)), ((96, 40), (12, 5))]:
        dense = make_dense(blocks(kind), input_size=size)
        assert dense.grid == grid
        assert identity_error(dense, torch.ones((1, 3, *size))) < 1e-5


@pytest.mark.parametrize("kind", [Blocks, ChannelsLastBlocks, TokenBlocks, TwoHeadedBlocks, ViewingBlocks])
def test_one_cell_is_still_classified(generator, kind):
    dense = make_dense(blocks(kind), input_size=(8, 8))
    assert (dense.kind, dense.grid) == (DenseKind.EXACT, (1, 1))
    images = some_images(dense, generator)
    torch.testing.assert_close(dense.logits(images).mean((2, 3)), averaged(dense.model(images), dense))


def test_one_cell_does_not_make_an_attention_head_exact():
    with pytest.raises(NoDenseMapError, match="max or attention pooling"):
        make_dense(blocks(AttentionAndAverageBlocks), input_size=(8, 8))


@pytest.mark.parametrize("kind", [InPlaceBlocks, TwoHeadedBlocks, ViewingBlocks])
def test_odd_linear_heads_are_exact(generator, kind):
    dense = make_dense(blocks(kind), input_size=(16, 24))
    assert dense.kind is DenseKind.EXACT
    assert identity_error(dense, some_images(dense, generator)) < 1e-5


def test_head_that_works_in_place_gets_copies(generator):
    dense = make_dense(blocks(InPlaceBlocks), input_size=(16, 24))
    images = some_images(dense, generator)
    dense.logits(images)
    assert torch.equal(dense.model.kept, dense.model.widen(images))


def test_head_that_convolves_before_it_averages_is_per_location():
    assert make_dense(blocks(ConvolvingBlocks), input_size=(16, 24)).kind is DenseKind.PER_LOCATION


ODD = {
    "constant-map": (ClassTokenBlocks, "a class token, from which alone"),
    "only-prefix": (DeclaredOnlyPrefixBlocks, "a class token: its features are 2 prefix tokens and no cells"),
    "average-and-attention": (AttentionAndAverageBlocks, "max or attention pooling"),
    "flattened": (SpatialBlocks, "a spatial head, which cannot work on a single cell"),
    "window": (WindowBlocks, "a spatial head .* change places"),
    "no-grid": (SequenceBlocks, r"features of shape \(1, 12\)"),
    "other-width": (WideBlocks, r"features of shape \(1, 24, 2, 3\) .* expected 12 channels"),
    "dictionary": (DictionaryBlocks, "forward_features gives a dict"),
    "unpooled": (UnpooledBlocks, r"the head gives shape \(1, 2, 3, 5\)"),
    "unlike-heads": (MixedHeadsBlocks, "heads of shapes"),
    "no-logits": (NoneBlocks, "the head gives a NoneType"),
    "encoder": (EncoderBlocks, "forward_head is not implemented"),
    "more-than-its-head": (SoftmaxBlocks, "forward.. is not forward_head"),
}


@pytest.mark.parametrize(("kind", "reason"), ODD.values(), ids=ODD)
def test_odd_heads_are_refused(kind, reason):
    with pytest.raises(NoDenseMapError, match=f"teacher {kind.__name__} has no dense map: .*{reason}"):
        make_dense(blocks(kind), input_size=(16, 24))


def test_tokens_that_fit_no_grid_are_refused():
    with pytest.raises(
        NoDenseMapError, match=r"features of shape \(1, 216, 12\) .* a grid in the proportions"
    ):
        make_dense(blocks(UnevenTokenBlocks), input_size=(16, 16))


@pytest.mark.parametrize("missing", ["forward_features", "forward_head", "num_features"])
def test_model_without_the_interface_is_refused(missing):
    model = nn.Linear(3, 5)
    for name in {"forward_features", "forward_head"} - {missing}:
        setattr(model, name, model.forward)
    with pytest.raises(NoDenseMapError, match=f"'{missing}'"):
        make_dense(model, input_size=(16, 24))


def test_untrained_classifier_is_refused():
    model = blocks(Blocks)
    nn.init.zeros_(model.classifier.weight)
    with pytest.raises(NoDenseMapError, match="do not depend on the image"):
        make_dense(model, input_size=(16, 24))


def test_logits_that_are_not_finite_are_refused():
    model = blocks(Blocks)
    nn.init.constant_(model.classifier.bias, math.nan)
    with pytest.raises(NonFiniteLogitsError, match="look at its weights"):
        make_dense(model, input_size=(16, 24))


def test_half_precision_model_is_refused():
    with pytest.raises(TeacherError, match=re.escape("'widen.weight' is torch.bfloat16")):
        make_dense(blocks(Blocks).bfloat16(), input_size=(16, 24))


def test_image_of_a_size_that_the_model_refuses_is_named(architecture):
    with pytest.raises(
        TeacherError, match=r"takes no images of 96 x 64 pixels \(.*choose another --input-size"
    ):
        make_dense(architecture("vit_tiny_patch16_224", depth=1), input_size=(96, 64))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 24, 16), torch.zeros(3, 16, 24), torch.zeros(1, 3, 16, 24, dtype=torch.uint8)],
    ids=["other-size", "no-batch", "uint8"],
)
def test_unfit_images_are_refused(images):
    dense = make_dense(blocks(Blocks), input_size=(16, 24))
    with pytest.raises(TeacherError, match=re.escape("expected torch.float32 of shape (n, 3, 16, 24)")):
        dense.logits(images)


def test_training_mode_is_left_and_refused_afterwards():
    model = blocks(Blocks).train()
    dense = make_dense(model, input_size=(16, 24))
    assert not model.training
    model.train()
    with pytest.raises(TeacherError, match="in training mode"):
        dense.logits(torch.zeros(1, 3, 16, 24))


def test_model_and_random_numbers_stay_untouched(architecture, generator):
    model = architecture("test_resnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    dense = make_dense(model, input_size=(64, 64))
    logits = dense.logits(some_images(dense, generator))
    assert torch.equal(torch.get_rng_state(), state)
    assert not logits.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_gradients_can_be_taken_of_the_model_afterwards(architecture, generator):
    model = architecture("levit_128s", img_size=128)
    dense = make_dense(model, input_size=(128, 128))
    model(some_images(dense, generator)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.head.parameters())


def test_result_does_not_depend_on_the_global_generator(architecture, generator):
    model = architecture("test_vit2", img_size=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = make_dense(model, input_size=(64, 64))
        torch.manual_seed(2)
        second = make_dense(model, input_size=(64, 64))
    images = some_images(first, generator)
    assert (first.kind, first.grid) == (second.kind, second.grid)
    assert torch.equal(first.logits(images), second.logits(images))


@pytest.mark.parametrize("case", ["efficientnet-nchw", "swin-nhwc", "vit-fc-norm"])
def test_bfloat16_features_give_near_float32_logits(architecture, generator, case):
    name, settings, size, _ = (EXACT | PER_LOCATION)[case]
    dense = make_dense(architecture(name, **settings), input_size=size)
    images = some_images(dense, generator)
    full, short = dense.logits(images), dense.logits(images, autocast=torch.bfloat16)
    assert short.dtype == torch.float32
    error = float((short - full).abs().mean() / full.std())
    assert 0 < error < 0.1


def test_head_works_in_float32_whatever_the_features_or_the_caller():
    dense = make_dense(blocks(RecordingBlocks), input_size=(16, 24))
    images = torch.ones(1, 3, 16, 24)
    full = dense.logits(images)
    dense.model.seen.clear()
    short = dense.logits(images, autocast=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = dense.logits(images)
    assert [(dtype, autocast) for dtype, autocast, _ in dense.model.seen] == [(torch.float32, False)] * 2
    assert torch.equal(within, full)
    assert not torch.equal(short, full)


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"),
    reason="this torch has no precision setting for matrix products",
)
def test_shortened_float32_is_off_in_the_head_and_on_again_after():
    setting = torch.backends.mkldnn.matmul
    dense = make_dense(blocks(RecordingBlocks), input_size=(16, 24))
    dense.model.seen.clear()
    before = setting.fp32_precision
    try:
        setting.fp32_precision = "bf16"
        dense.logits(torch.ones(1, 3, 16, 24))
        assert [precision for *_, precision in dense.model.seen] == ["ieee"]
        assert setting.fp32_precision == "bf16"
    finally:
        setting.fp32_precision = before


def test_identity_error_shows_a_wrong_map(generator):
    dense = make_dense(blocks(Blocks), input_size=(16, 24))
    other = Blocks().eval()
    images = some_images(dense, generator)
    assert identity_error(dense, images) < 1e-5
    assert identity_error(dataclasses.replace(dense, model=other), images) > 0.1


def test_identity_error_is_infinite_where_logits_are_not_finite(generator):
    dense = make_dense(blocks(Blocks), input_size=(16, 24))
    images = some_images(dense, generator)
    images[0, 0, 0, 0] = math.nan
    assert identity_error(dense, images) == math.inf


@pytest.mark.gpu
def test_cuda_agrees_with_cpu(architecture, generator):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = architecture("resnetv2_18")
    on_cpu = make_dense(model, input_size=(64, 64))
    images = some_images(on_cpu, generator)
    expected = on_cpu.logits(images)
    dense = make_dense(model.to("cuda"), input_size=(64, 64))
    assert dense.kind is DenseKind.EXACT
    assert identity_error(dense, images.to("cuda")) < 1e-5
    torch.testing.assert_close(dense.logits(images.to("cuda")).cpu(), expected, rtol=1e-2, atol=1e-2)


class BentBlocks(Blocks):
    """A norm and a smooth bend after the average, as ConvNeXt and MobileNetV3 have."""

    def forward_head(self, features: Tensor) -> Tensor:
        average = features.mean((2, 3))
        return self.classifier(functional.silu(functional.layer_norm(average, (self.num_features,))))


def tangent_map(model: BentBlocks, images: Tensor) -> Tensor:
    """Follow the head's derivative from the average to each cell, one image, cell and class at a time."""
    features = model.forward_features(images).detach()
    n, _, n_rows, n_cols = features.shape
    found = torch.empty(n, 5, n_rows, n_cols)
    for image in range(n):
        average = features[image].mean((1, 2))
        for c in range(5):
            at = average.clone().requires_grad_()
            logit = model.forward_head(at[None, :, None, None])[0, c]
            (slope,) = torch.autograd.grad(logit, at)
            for row in range(n_rows):
                for col in range(n_cols):
                    way = features[image, :, row, col] - average
                    found[image, c, row, col] = float(logit.detach()) + float(slope @ way)
    return found


@pytest.mark.parametrize("in_inference_mode", [False, True])
def test_a_linearized_head_is_its_tangent_at_the_average(in_inference_mode: bool, generator: torch.Generator):
    dense = make_dense(BentBlocks(), input_size=(24, 32), variant=Variant.LINEARIZED)
    assert (dense.kind, dense.variant) == (DenseKind.PER_LOCATION, Variant.LINEARIZED)
    images = some_images(dense, generator)
    with torch.inference_mode(mode=in_inference_mode):
        found = dense.logits(images)
    torch.testing.assert_close(found, tangent_map(dense.model, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(PER_LOCATION) - {"efficientvit-convolution-first"}))
def test_the_mean_of_a_linearized_head_is_the_logits(
    name: str, architecture: Callable[..., nn.Module], generator: torch.Generator
):
    architecture_name, settings, size, _ = PER_LOCATION[name]
    model = architecture(architecture_name, **settings)
    dense = make_dense(model, input_size=size, variant=Variant.LINEARIZED)
    replayed = make_dense(model, input_size=size)
    images = some_images(dense, generator)
    assert identity_error(dense, images) < 1e-5
    assert identity_error(replayed, images) > 1e-3
    assert dense.logits(images).std(dim=(2, 3)).min() > 0


def test_a_head_that_bends_cells_first_cannot_be_linearized(architecture: Callable[..., nn.Module]):
    name, settings, size, _ = PER_LOCATION["efficientvit-convolution-first"]
    with pytest.raises(TeacherError, match=r"works on cells before it averages them; use --head replay"):
        make_dense(architecture(name, **settings), input_size=size, variant=Variant.LINEARIZED)


def test_a_linear_head_is_replayed_whatever_is_asked():
    assert make_dense(Blocks(), input_size=(24, 32), variant=Variant.LINEARIZED).variant is Variant.REPLAY
