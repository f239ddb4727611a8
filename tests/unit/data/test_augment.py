"""Whole-batch augmentation: reproducible, correct against references, and never touching what it must not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from histo_lightning.data.augment import Recipe, augment, evaluation_view, normalise, uniform

MEAN, STD = torch.tensor([0.7, 0.6, 0.8]), torch.tensor([0.1, 0.2, 0.15])
UNIT = torch.zeros(3), torch.ones(3)


def batch(count: int = 8, height: int = 40, width: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    )


D4 = Recipe(size=32, name="d4", dihedral=True, brightness=0.1, contrast=0.1, channel_gain=0.05)
STAIN = Recipe(size=32, name="d4_stain", dihedral=True, stain_gain=0.2, stain_shift=0.02)
THESIS = Recipe(
    size=32,
    name="thesis",
    crop_scale=(0.08, 1.0),
    crop_ratio=(0.75, 4 / 3),
    horizontal_flip=True,
    rotation_degrees=15,
    evaluate="center",
)


def test_uniform_numbers_are_uniform_and_independent_of_the_batch() -> None:
    u = uniform(3, 5, torch.arange(20000), 4).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert np.allclose(u.mean(axis=0), 0.5, atol=0.01)
    assert np.allclose(u.std(axis=0), 12**-0.5, atol=0.01)
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03
    some = torch.tensor([17, 4, 19999])
    assert torch.equal(uniform(3, 5, some, 4), torch.from_numpy(u[some.numpy()]))
    for other in (uniform(4, 5, some, 4), uniform(3, 6, some, 4)):
        assert not torch.equal(other, torch.from_numpy(u[some.numpy()]))


@pytest.mark.parametrize("recipe", [D4, STAIN, THESIS], ids=lambda r: r.name)
def test_a_sample_is_augmented_alike_in_any_batch(recipe: Recipe) -> None:
    images, samples = batch(), torch.arange(100, 108)
    whole = augment(images, samples, recipe, MEAN, STD, seed=1, epoch=2)
    assert whole.shape == (8, 3, 32, 32)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    order = torch.tensor([5, 0, 3])
    part = augment(images[order], samples[order], recipe, MEAN, STD, seed=1, epoch=2)
    assert torch.allclose(whole[order], part, atol=1e-5)
    assert not torch.allclose(whole, augment(images, samples, recipe, MEAN, STD, seed=1, epoch=3))


def test_d4_crops_are_true_crops_in_one_of_eight_orientations() -> None:
    recipe = Recipe(size=32, name="d4", dihedral=True)
    images = batch(64)
    out = (augment(images, torch.arange(64), recipe, *UNIT, seed=0, epoch=0) * 255).round().to(torch.uint8)
    seen = set()
    for image, crop in zip(images.numpy(), out.permute(0, 2, 3, 1).numpy(), strict=True):
        found = None
        for turns in range(4):
            for mirrored in (False, True):
                back = np.rot90(crop[:, ::-1] if mirrored else crop, turns)
                for top in range(9):
                    for left in range(29):
                        if np.array_equal(image[top : top + 32, left : left + 32], back):
                            found = (turns, mirrored)
        assert found is not None
        seen.add(found)
    assert len(seen) == 8


def test_normalisation_is_torchvision_s() -> None:
    images = batch()
    expected = reference.normalize(images.permute(0, 3, 1, 2).float() / 255, MEAN.tolist(), STD.tolist())
    assert torch.allclose(normalise(images, MEAN, STD), expected, atol=1e-5)
    assert torch.allclose(evaluation_view(images, D4, MEAN, STD), expected, atol=1e-5)
    centre = evaluation_view(images, THESIS, MEAN, STD)
    assert torch.allclose(centre, reference.center_crop(expected, [32, 32]), atol=1e-5)
    plain = augment(images, torch.arange(8), Recipe(size=32, name="none"), MEAN, STD, seed=0, epoch=0)
    assert torch.allclose(plain, centre, atol=1e-5)


def test_the_thesis_s_crop_without_chance_is_a_plain_resize() -> None:
    """Full crop, no flip, no rotation: what is left must be torchvision's bilinear resize."""
    recipe = Recipe(size=32, name="thesis", crop_scale=(1.0, 1.0), crop_ratio=(0.999999, 1.000001))
    images = batch(2, 32, 32)
    out = augment(images, torch.arange(2), recipe, *UNIT, seed=0, epoch=0)
    assert torch.allclose(out, images.permute(0, 3, 1, 2).float() / 255, atol=2e-3)


def test_thesis_rotation_turns_by_at_most_the_stated_angle() -> None:
    """The centre of mass of a far dot tells the angle."""
    image = torch.zeros(1, 101, 101, 3, dtype=torch.uint8)
    image[:, 49:52, 88:93] = 255
    recipe = Recipe(size=101, name="thesis", crop_scale=(0.99999, 1.0), rotation_degrees=15)
    angles = []
    for epoch in range(60):
        out = augment(image, torch.tensor([0]), recipe, *UNIT, seed=0, epoch=epoch)[0, 0]
        y, x = np.mgrid[:101, :101] - 50.0
        weight = out.numpy() / out.sum().item()
        angles.append(np.degrees(np.arctan2((weight * y).sum(), (weight * x).sum())))
        assert abs(np.hypot((weight * y).sum(), (weight * x).sum()) - 40) < 1.5
    assert 12 < max(np.abs(angles)) < 15.6
    assert min(angles) < -8
    assert max(angles) > 8


def test_colour_changes_stay_within_what_is_stated() -> None:
    grey = torch.full((256, 32, 32, 3), 128, dtype=torch.uint8)
    recipe = Recipe(size=32, name="d4", brightness=0.1)
    out = augment(grey, torch.arange(256), recipe, *UNIT, seed=0, epoch=0) * 255 / 128
    assert 0.895 < out.min() < 0.92
    assert 1.08 < out.max() < 1.105


def test_stain_jitter_moves_along_haematoxylin_and_eosin_only() -> None:
    """In optical density the change lies in the plane of the H and E vectors; without jitter nothing changes."""
    from histo_lightning.data.pixels.stains import HED

    images = torch.randint(60, 200, (16, 32, 32, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    still = Recipe(size=32, name="d4_stain", stain_gain=1e-9)
    out = augment(images, torch.arange(16), still, *UNIT, seed=0, epoch=0)
    assert torch.allclose(out * 255, images.permute(0, 3, 1, 2).float(), atol=0.01)
    moved = augment(
        images, torch.arange(16), Recipe(size=32, name="d4_stain", stain_gain=0.1), *UNIT, seed=0, epoch=0
    )
    change = (-torch.log(moved) + torch.log(out)).permute(0, 2, 3, 1).reshape(-1, 3).double()
    normal = torch.linalg.cross(
        torch.tensor(HED[0], dtype=torch.float64), torch.tensor(HED[1], dtype=torch.float64)
    )
    off_plane = (change @ (normal / normal.norm())).abs().max()
    assert change.norm(dim=1).max() > 0.02
    assert off_plane < 1e-3


@pytest.mark.parametrize("size", [8, 5])  # pixels are mixed sixteen at a time where that goes up
def test_stain_jitter_is_the_formula_of_optical_densities_at_every_intensity(size: int) -> None:
    """Tellez 2018 by hand in float64: unmixed, amounts times gain plus shift, mixed again; black and white pixels too."""
    from histo_lightning.data.pixels.stains import HED

    images = torch.arange(4 * size * size * 3, dtype=torch.int64).reshape(4, size, size, 3) * 37 % 256
    recipe = Recipe(size=size, name="d4_stain", stain_gain=0.2, stain_shift=0.05)
    out = augment(images.to(torch.uint8), torch.arange(4), recipe, *UNIT, seed=3, epoch=2)
    drawn = 2 * uniform(3, 2, torch.arange(4), 16)[:, 7:11].double().numpy() - 1
    stains = np.array(HED) / np.linalg.norm(HED, axis=1, keepdims=True)
    for image, (h, e, more_h, more_e), ours in zip(images.double().numpy(), drawn, out, strict=True):
        amounts = -np.log(np.maximum(image, 1) / 255) @ np.linalg.inv(stains)
        amounts = amounts * [1 + 0.2 * h, 1 + 0.2 * e, 1] + [0.05 * more_h, 0.05 * more_e, 0]
        expected = np.exp(-np.maximum(amounts @ stains, 0))
        np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), expected, rtol=0, atol=2e-6)
    turned = Recipe(
        size=size, name="x", rotation_degrees=30, crop_scale=(0.5, 1), stain_gain=0.2, dihedral=False
    )
    before = augment(
        images.to(torch.uint8), torch.arange(4), replace(turned, stain_gain=1e-9), *UNIT, seed=3, epoch=2
    )
    after = augment(images.to(torch.uint8), torch.arange(4), turned, *UNIT, seed=3, epoch=2)
    assert torch.isfinite(after).all()
    assert 0.01 < (after - before).abs().mean() < 0.2


def test_the_recipe_says_what_it_does() -> None:
    assert D4.text() == (
        "train: random crop of 32 at native scale, eight orientations, brightness 0.1, contrast 0.1, "
        "channel gain 0.05; evaluation: whole field"
    )
    assert "rotation up to 15 degrees" in THESIS.text()
