from __future__ import annotations

import re
import runpy
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from relabel_store.labels.pooling import Variant, pool_image, pool_labels, soft_targets
from relabel_store.labels.vectors import NAME, PoolingVector, load_pooling_vectors
from relabel_store.schema import SCHEMAS_PACKAGE, load_document, schema_errors

SCRIPT = Path(__file__).parents[2] / "docs" / "reference" / "pooling_vectors.py"
VECTORS = load_pooling_vectors()


def test_the_file_is_what_its_script_writes() -> None:
    shipped = (resources.files(SCHEMAS_PACKAGE) / f"{NAME}.json").read_text(encoding="utf-8")
    assert shipped == runpy.run_path(str(SCRIPT))["document"]()


def test_the_file_follows_its_schema() -> None:
    assert list(schema_errors(load_document(f"{NAME}.json"), NAME)) == []


def test_the_script_knows_nothing_of_the_code_under_test() -> None:
    assert "relabel_store" not in SCRIPT.read_text(encoding="utf-8")


def test_a_box_almost_on_a_limit_is_refused() -> None:
    case = runpy.run_path(str(SCRIPT))["case"]
    with pytest.raises(ValueError, match="almost on a limit"):
        case("made-up", "2.0000001 cells", [(0.1, 0.2, 0.6, 0.9)])


def test_the_vectors_cover_what_there_is() -> None:
    assert len({vector.name for vector in VECTORS}) == len(VECTORS)
    assert {vector.variant for vector in VECTORS} == set(Variant)
    assert {vector.indices.dtype for vector in VECTORS} == {np.dtype(np.uint16), np.dtype(np.uint32)}
    for name in ("rest", "classes", "hflip", "vflip"):
        assert {getattr(vector, name) is None for vector in VECTORS} == {True, False}


def test_numbers_that_float16_and_float32_hold_are_read_exactly() -> None:
    for case, vector in zip(load_document(f"{NAME}.json")["cases"], VECTORS, strict=True):
        for name in ("indices", "values", "boxes_xyxy", "rest"):
            if case[name] is not None:
                np.testing.assert_array_equal(np.array(case[name]), getattr(vector, name))


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_the_reference_gives_the_published_numbers(vector: PoolingVector) -> None:
    maps = {"num_classes": vector.num_classes, "rest": vector.rest}
    region = {
        "output_size": vector.output_size,
        "hflip": vector.hflip,
        "vflip": vector.vflip,
        "legacy_xy_swap": vector.legacy_xy_swap,
    }
    if vector.variant.is_localized:
        logits = pool_labels(vector.indices, vector.values, vector.boxes_xyxy, **maps, **region)
    else:
        logits = pool_image(vector.indices, vector.values, **maps)
        if vector.output_size != (1, 1):
            logits = np.broadcast_to(logits[:, :, None, None], (*logits.shape, *vector.output_size))
    if vector.classes is not None:
        logits = logits[:, list(vector.classes)]
    np.testing.assert_allclose(logits, vector.logits, atol=vector.atol, rtol=vector.rtol)
    assert logits.shape == vector.logits.shape
    targets = soft_targets(
        vector.indices,
        vector.values,
        vector.boxes_xyxy,
        **maps,
        **region,
        temperature=vector.temperature,
        variant=vector.variant,
        classes=vector.classes,
    )
    np.testing.assert_allclose(targets, vector.targets, atol=vector.atol, rtol=vector.rtol)
    assert targets.shape == vector.targets.shape


def test_the_loop_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SCRIPT.parents[2])
    page = SCRIPT.with_name("pooling-vectors.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(block, {})
    assert f"{len(VECTORS)} small cases" in page
