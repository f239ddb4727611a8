"""Heat maps over images, and their page."""

from pathlib import Path

import numpy as np

from factories.html import Page
from histo_lightning.inference.predict import Prediction, overlay, write_gallery
from histo_lightning.report.pages import thumbnail


def test_a_heat_map_colours_where_it_is_hot_and_nothing_else() -> None:
    field = np.full((4, 6, 3), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[0, 0] = 1
    pair = overlay(field, heat)
    assert pair.shape == (4, 12, 3)
    np.testing.assert_array_equal(pair[:, :6], field)
    np.testing.assert_array_equal(pair[1:, 6:], field[1:])
    hottest = np.array([252, 255, 164])  # the last colour of inferno
    np.testing.assert_allclose(pair[0, 6], 0.45 * 100 + 0.55 * hottest, atol=1)


def test_the_gallery_s_page(tmp_path: Path) -> None:
    field = np.random.default_rng(0).integers(0, 255, (40, 1200, 3), dtype=np.uint8)
    explained = [
        Prediction(Path(f"/data/<{i}>&.png"), heat_map=f"gradcam/{i} x.png", caption=f"benign 0.{i}")
        for i in range(3)
    ]
    for prediction in explained[:2]:
        prediction.picture = thumbnail(field, prediction.path.name, 560)
    write_gallery(tmp_path / "index.html", [*explained, Prediction(Path("x.png"))], ["benign", "malignant"])
    page = Page(tmp_path / "index.html")
    assert page.is_self_contained()
    assert page.title == "Grad-CAM"
    assert page.alts == ["<0>&.png", "<1>&.png"]
    assert page.links == ["gradcam/0%20x.png", "gradcam/1%20x.png"]
    assert "for the likeliest of benign, malignant" in page.text
    assert "1 more in the folder gradcam." in page.text
    write_gallery(tmp_path / "index.html", [], ["benign"])
    assert "No image could be read." in Page(tmp_path / "index.html").text
