"""docs/theory.md: all its blocks run, its numbers agree with independent sources, its pictures are the committed ones."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d, correlate2d, lfilter
from torch import Tensor
from torch.nn import functional, grad

from factories.pages import python_blocks, run_blocks

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "theory.md"
PICTURES = re.findall(r"^!\[[^\]]+\]\((images/[^)]+)\)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimpleNamespace, Path]:
    """The page's names after all blocks have run, and the folder that they ran in."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "images").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return SimpleNamespace(**run_blocks(PAGE)), folder


@pytest.fixture
def page(run) -> SimpleNamespace:
    return run[0]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_torch(gradient, start: Tensor, alpha: float, steps: int, momentum: float = 0.0) -> Tensor:
    """The path that torch's own SGD takes."""
    theta = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([theta], lr=alpha, momentum=momentum)
    path = [start]
    for _ in range(steps):
        theta.grad = gradient(theta.detach())
        optimizer.step()
        path.append(theta.detach().clone())
    return torch.stack(path)


# The page itself


def test_every_section_has_its_picture_and_no_picture_is_left_over() -> None:
    assert len(PICTURES) == len(set(PICTURES)) == 8
    committed = {f"images/{path.name}" for path in (ROOT / "docs" / "images").glob("theory_*.png")}
    assert committed == set(PICTURES)
    drawing = [code for _, code in python_blocks(PAGE) if "\nsave(figure" in code]
    assert len(drawing) == len(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_the_committed_picture_is_the_one_that_the_page_draws(run, name: str) -> None:
    committed = ROOT / "docs" / name
    assert committed.stat().st_size < MOST_BYTES
    with Image.open(committed) as old, Image.open(run[1] / name) as new:
        assert old.size == new.size
        pixels, drawn = (np.asarray(image.convert("L"), dtype=float) for image in (old, new))
    assert drawn.std() > 10  # something stands in it
    # Glyphs may differ by a shade between builds of the font renderer; a moved line or number weighs more.
    assert np.abs(pixels - drawn).mean() < 0.05 * np.abs(255 - drawn).mean()


def test_a_block_that_fails_is_shown_with_the_page_s_own_line(tmp_path: Path) -> None:
    broken = tmp_path / "page.md"
    broken.write_text(
        "# Page\n\n```python\nx = 1\n```\n\n```\nnot python\n```\n\n```python\ny = x\nassert y == 2\n```\n"
    )
    with pytest.raises(AssertionError) as caught:
        run_blocks(broken)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (broken, 13)
    assert python_blocks(broken)[0] == (4, "x = 1\n")


def test_the_package_does_not_know_the_page() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert "factories.pages" not in path.read_text(encoding="utf-8"), path


# 1. Backpropagation


def test_the_example_s_values_and_gradients(page) -> None:
    assert page.forward(page.graph, {"x": -2, "y": 5, "z": 4})["f"] == 12
    assert page.at_minus_4["f"] == -12
    for z, slopes in ((4.0, page.slope_at_4), (-4.0, page.slope_at_minus_4)):
        x, y, z_ = (torch.tensor(value, requires_grad=True) for value in (-2.0, 5.0, z))
        ((x + y) * z_).backward()
        assert [slopes[name] for name in "xyz"] == [x.grad, y.grad, z_.grad] == [z, z, 3]


TORCH_GATES = {
    "+": torch.add,
    "*": torch.mul,
    "max": torch.maximum,
    "relu": torch.relu,
    "exp": torch.exp,
    "1/": torch.reciprocal,
}


@pytest.mark.parametrize("seed", range(30))
def test_any_graph_has_autograd_s_gradients(page, seed: int) -> None:
    """Random graphs in which nodes feed several gates, or none that matters."""
    assert set(page.GATES) == set(TORCH_GATES)
    generator = np.random.default_rng(seed)
    leaves = {f"in{i}": float(value) for i, value in enumerate(generator.uniform(-1.5, 1.5, 4))}
    tracked = {name: torch.tensor(value, dtype=torch.float64) for name, value in leaves.items()}
    for leaf in tracked.values():
        leaf.requires_grad_()
    graph = []
    for i in range(16):
        gate = str(generator.choice(list(TORCH_GATES)))
        count = 1 if gate in ("relu", "exp", "1/") else 2
        sources = [
            str(name) for name in generator.choice(list(tracked), count)
        ]  # a gate may get one node twice
        inputs = [tracked[source] for source in sources]
        plain = [float(value.detach()) for value in inputs]
        value = TORCH_GATES[gate](*inputs)
        # At a tie and at 0 the slope of max and relu is a matter of taste.
        unclear = (gate == "max" and plain[0] == plain[1]) or (gate == "relu" and plain[0] == 0)
        if unclear or (gate == "1/" and abs(plain[0]) < 0.1) or float(value.detach().abs()) > 50:
            continue
        value.retain_grad()
        tracked[f"node{i}"] = value
        graph.append((f"node{i}", gate, *sources))
    tracked["end"] = tracked["in0"] + tracked[graph[-1][0]]
    graph.append(("end", "+", "in0", graph[-1][0]))
    tracked["end"].retain_grad()
    tracked["end"].backward()
    values = page.forward(graph, leaves)
    gradients = page.backward(graph, values)
    for name, node in tracked.items():
        assert values[name] == pytest.approx(float(node.detach()), rel=1e-12)
        assert gradients[name] == pytest.approx(0.0 if node.grad is None else float(node.grad), rel=1e-9)


# 2. Convolution


def test_the_3x3_example_by_hand_and_by_scipy(page) -> None:
    x, f, d_out = page.X.numpy(), page.F.numpy(), page.dO.numpy()
    assert page.out.tolist() == [[5, 4], [2, 1]] == correlate2d(x, f, "valid").tolist()
    assert page.dF.tolist() == [[5, 7], [8, 16]] == correlate2d(x, d_out, "valid").tolist()
    # scipy's convolution flips the filter by itself.
    assert page.dX.tolist() == [[1, 1, -2], [1, 8, -3], [-2, 6, 0]] == convolve2d(d_out, f, "full").tolist()


def test_a_row_is_numpy_s_convolution_with_the_filter_turned(page) -> None:
    row, f = normal(0, 1, 9), normal(1, 1, 3)
    assert page.convolve(row, f.flip(0, 1))[0].numpy() == pytest.approx(
        np.convolve(row[0].numpy(), f[0].numpy(), "valid")
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_both_gradients_for_many_sizes(page, stride: int, padding: int) -> None:
    for rows, columns, height, width in [
        (3, 3, 2, 2),
        (5, 7, 3, 2),
        (6, 4, 1, 3),
        (8, 8, 4, 4),
        (7, 7, 7, 7),
    ]:
        x, f = normal(rows, rows, columns), normal(height, height, width)
        out = functional.conv2d(x[None, None], f[None, None], stride=stride, padding=padding)
        assert torch.allclose(page.convolve(x, f, stride, padding), out[0, 0])
        d_out = normal(7, *out.shape)
        d_x = grad.conv2d_input((1, 1, rows, columns), f[None, None], d_out, stride, padding)
        d_f = grad.conv2d_weight(x[None, None], (1, 1, height, width), d_out, stride, padding)
        assert torch.allclose(page.input_gradient(f, d_out[0, 0], x.shape, stride, padding), d_x[0, 0])
        assert torch.allclose(page.filter_gradient(x, d_out[0, 0], f.shape, stride, padding), d_f[0, 0])


@pytest.mark.parametrize(
    "case", [((4, 4), (2, 2), 1, 0), ((5, 4), (2, 3), 2, 1), ((6, 6), (3, 3), 3, 2), ((4, 5), (1, 2), 3, 0)]
)
def test_both_gradients_by_finite_differences(page, case) -> None:
    for name, error in page.largest_errors(*case, seed=3).items():
        assert error < (1e-7 if "finite" in name else 1e-12), name


def test_finite_differences_notice_a_wrong_gradient(page) -> None:
    """The page's judge is no yes-man: an unflipped filter is caught."""
    f, d_out = normal(0, 2, 2), normal(1, 3, 3)
    x = normal(2, 4, 4)
    found = page.finite_differences(lambda moved: (page.convolve(moved, f) * d_out).sum(), x)
    assert torch.allclose(found, page.input_gradient(f, d_out, x.shape), atol=1e-7)
    assert not torch.allclose(found, page.input_gradient(f.flip(0, 1), d_out, x.shape), atol=0.1)


def test_the_output_size_counts_the_windows(page) -> None:
    for size in range(1, 12):
        for filter_size in range(1, 5):
            for stride in (1, 2, 3, 4):
                for padding in (0, 1, 2):
                    length = size + 2 * padding
                    starts = [s for s in range(0, length, stride) if s + filter_size <= length]
                    if starts:
                        assert page.output_size(size, filter_size, stride, padding) == len(starts)


def test_the_filter_learns_as_under_torch_s_sgd(page) -> None:
    f = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([f], lr=page.alpha)
    for step in range(120):
        out = functional.conv2d(page.image[None, None], f[None, None])[0, 0]
        loss = ((out - page.wanted) ** 2).mean() / 2
        assert float(loss.detach()) == pytest.approx(page.losses[step], rel=1e-6, abs=1e-20)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.allclose(page.filters[step + 1], f.detach())
    assert (np.diff(page.losses) < 0).all()
    assert torch.allclose(page.learned, page.sobel, atol=1e-5)


# 3. Gradient descent


def test_the_first_steps_on_the_square(page) -> None:
    assert page.path[:5].tolist() == pytest.approx([3, 2.4, 1.92, 1.536, 1.2288])
    assert (page.path.diff() < 0).all()
    for alpha in (0.1, 0.3, 0.9):
        start = torch.tensor([3.0], dtype=torch.float64)
        ours = page.descend(page.slope_of_square, start, alpha, 50)
        assert torch.allclose(ours, by_torch(lambda theta: 2 * theta, start, alpha, 50))


@pytest.mark.parametrize(
    ("alpha", "kind"), [(0.49, "side"), (0.5, "at once"), (0.51, "across"), (0.999, "across"), (1.001, "out")]
)
def test_the_learning_rate_decides_as_the_page_says(page, alpha: float, kind: str) -> None:
    track = page.descend(page.slope_of_square, torch.tensor([3.0], dtype=torch.float64), alpha, 20)[:, 0]
    if kind == "at once":
        assert float(track[1].abs()) < 1e-12
        return
    assert bool((track[1:] * track[:-1] < 0).all()) is (kind != "side")
    assert bool((track.abs().diff() > 0).all()) is (kind == "out")


def test_the_narrow_bowl_limits_the_rate_to_an_eighth(page) -> None:
    start = torch.tensor([3.0, 2.0], dtype=torch.float64)
    for stretch in (1, 8):
        gradient = page.bowl_slope(stretch)
        weights = torch.tensor([1.0, stretch], dtype=torch.float64)
        by_steps = page.finite_differences(lambda theta, w=weights: (w * theta**2).sum(), start)
        assert torch.allclose(gradient(start), by_steps)
    below, above = (
        page.descend(page.bowl_slope(8), start, alpha, 2000)[-1].norm() for alpha in (0.124, 0.126)
    )
    assert below < 1e-6
    assert above > 1e6


def test_least_squares_by_numpy(page) -> None:
    x, y = page.x.numpy(), page.y.numpy()
    slope, intercept = np.polyfit(x, y, 1)
    assert page.best.tolist() == pytest.approx([intercept, slope])
    assert page.batch_path[-1].tolist() == pytest.approx([intercept, slope], abs=1e-4)
    assert float(page.cost(page.best)) == pytest.approx(
        np.square(np.polyval([slope, intercept], x) - y).mean() / 2
    )
    theta = normal(5, 2).requires_grad_()
    page.cost(theta).backward()
    assert torch.allclose(page.cost_gradient(theta.detach()), theta.grad)
    assert float(page.cost_gradient(page.best).norm()) < 1e-12


def test_both_descents_are_torch_s(page) -> None:
    batch = by_torch(page.cost_gradient, page.start, 0.2, 400)
    assert torch.allclose(page.batch_path, batch)
    generator = torch.Generator().manual_seed(0)
    order = torch.cat([torch.randperm(page.m, generator=generator) for _ in range(10)])
    points = iter(order.tolist())

    def slope_at_one_point(theta: Tensor) -> Tensor:
        i = next(points)
        tracked = theta.clone().requires_grad_()
        ((tracked[0] + tracked[1] * page.x[i] - page.y[i]) ** 2 / 2).backward()
        assert tracked.grad is not None
        return tracked.grad

    assert torch.allclose(page.stochastic_path, by_torch(slope_at_one_point, page.start, 0.05, 400))
    assert len(page.batch_path) == len(page.stochastic_path) == 401


def test_the_stochastic_path_arrives_but_does_not_rest(page) -> None:
    late = page.stochastic_path[-page.m :]
    assert float((late - page.best).norm(dim=1).max()) < 0.5
    assert float(late.diff(dim=0).norm(dim=1).max()) > 0.01
    assert float(page.batch_path[-page.m :].diff(dim=0).norm(dim=1).max()) < 1e-4


# 4. Momentum


@pytest.mark.parametrize("momentum", [0.0, 0.09, 0.9])
def test_momentum_is_torch_s(page, momentum: float) -> None:
    assert page.velocities(momentum, 50, 2.0) == pytest.approx(lfilter([1], [1, -momentum], np.full(50, 2.0)))
    start = torch.tensor([3.0, 2.0], dtype=torch.float64)
    ours = page.momentum_descent(page.bowl_slope(8), start, 0.005, momentum, 100)
    assert torch.allclose(ours, by_torch(page.bowl_slope(8), start, 0.005, 100, momentum))


def test_the_effective_steps_of_the_table(page) -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = re.findall(r"^\| (0(?:\.\d+)?)\D.*\| \$([\d.]+)?\\alpha\$ \| (\d+) steps?", text, re.MULTILINE)
    assert [row[0] for row in table] == ["0", "0.09", "0.9"]
    for momentum, factor, steps in table:
        limit = 1 / (1 - float(momentum))
        assert float(factor or 1) == pytest.approx(limit, abs=5e-4)
        # v after n steps is limit (1 - mu^n): 99 % of it after log(.01) / log(mu) steps.
        needed = 1 if momentum == "0" else math.ceil(math.log(0.01) / math.log(float(momentum)))
        assert int(steps) == needed
