from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from relabel_store.errors import BoxError
from relabel_store.labels import pooling as reference
from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.topk import top_k
from relabel_store.labels.vectors import PoolingVector, load_pooling_vectors
from relabel_store.manifest import AbsentRule
from relabel_store.store.reader import open_store
from relabel_store.testing import make_manifest, make_store

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow", reason="needs the extra tensorflow")

from relabel_store.tensorflow import axis_weights, pool_labels, soft_targets  # noqa: E402 - after what it needs

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "tensorflow.md"
Maps = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


def make_maps(rng: np.random.Generator, n: int, num_classes: int, k: int, grid: tuple[int, int]) -> Maps:
    indices, values = top_k(rng.normal(3, 4, (n, num_classes, *grid)).astype(np.float32), k)
    rest = rng.normal(1, 2, (n, *grid)).astype(np.float16)
    return indices.astype(np.uint16), values.astype(np.float16), rest


def make_boxes(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Boxes inside the image, smaller than a cell, touching its border, and leaving it."""
    sizes = rng.choice([0.01, 0.2, 0.6, 1.0, 1.5], (n, 2)) * rng.uniform(0.5, 1, (n, 2))
    corners = rng.uniform(-0.4, 1.0, (n, 2))
    corners = np.where(rng.random((n, 2)) < 0.2, np.round(corners), corners)
    return np.concatenate([corners, np.minimum(corners + sizes, 2)], axis=1).astype(np.float32)


@pytest.mark.parametrize("vector", load_pooling_vectors(), ids=str)
def test_pooling_gives_the_published_numbers(vector: PoolingVector) -> None:
    region = {
        "num_classes": vector.num_classes,
        "rest": vector.rest,
        "output_size": vector.output_size,
        "hflip": vector.hflip,
        "vflip": vector.vflip,
        "legacy_xy_swap": vector.legacy_xy_swap,
    }
    maps = vector.indices, vector.values, vector.boxes_xyxy
    targets = soft_targets(
        *maps, **region, temperature=vector.temperature, variant=vector.variant, classes=vector.classes
    )
    assert (targets.shape, targets.dtype) == (vector.targets.shape, tf.float32)
    np.testing.assert_allclose(targets, vector.targets, atol=vector.atol, rtol=vector.rtol)
    if vector.variant.is_localized:
        chosen = slice(None) if vector.classes is None else list(vector.classes)
        logits = pool_labels(*maps, **region).numpy()[:, chosen]
        np.testing.assert_allclose(logits, vector.logits, atol=vector.atol, rtol=vector.rtol)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 3),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    output_size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    has_rest=st.booleans(),
)
def test_pooling_is_the_reference(
    seed: int, n: int, grid: tuple[int, int], output_size: tuple[int, int], has_rest: bool
) -> None:
    rng = np.random.default_rng(seed)
    indices, values, rest = make_maps(rng, n, 7, 3, grid)
    boxes, (hflip, vflip) = make_boxes(rng, n), rng.integers(0, 2, (2, n)).astype(bool)
    given = {"rest": rest if has_rest else None, "output_size": output_size, "hflip": hflip, "vflip": vflip}
    expected = reference.pool_labels(indices, values, boxes, num_classes=7, **given)
    np.testing.assert_allclose(
        pool_labels(indices, values, boxes, num_classes=7, **given), expected, **TOLERANCE
    )


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize(("n_cells", "n_bins"), [(15, 1), (15, 14), (7, 3)])
def test_boxes_of_whole_pixels_get_as_many_sample_points_as_in_the_reference(
    n_cells: int, n_bins: int, jit_compile: bool, rng: np.random.Generator
) -> None:
    # Many of these are a whole number of cells wide, where the last bit of a position decides.
    sides = rng.choice([375, 500, 30 * n_cells, 2048], 3000)
    widths = np.ceil(rng.random(3000) * sides)
    starts = np.floor(rng.random(3000) * (sides - widths + 1))
    start, stop = (starts / sides).astype(np.float32), ((starts + widths) / sides).astype(np.float32)
    expected = reference.axis_weights(start, stop, n_cells=n_cells, n_bins=n_bins)
    weights = tf.function(axis_weights, jit_compile=jit_compile)
    found = weights(tf.constant(start), tf.constant(stop), n_cells=n_cells, n_bins=n_bins)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("output_size", [(1, 1), (2, 3)], ids=str)
def test_it_goes_into_a_function(
    output_size: tuple[int, int], jit_compile: bool, rng: np.random.Generator
) -> None:
    indices, values, rest = make_maps(rng, 5, 6, 3, (3, 4))
    boxes = make_boxes(rng, 5)
    expected = reference.soft_targets(
        indices, values, boxes, num_classes=6, rest=rest, output_size=output_size
    )

    @tf.function(jit_compile=jit_compile)
    def pool(indices: Any, values: Any, boxes: Any, rest: Any) -> Any:
        return soft_targets(indices, values, boxes, num_classes=6, rest=rest, output_size=output_size)

    found = pool(*map(tf.constant, (indices, values, boxes, rest)))
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_it_goes_into_a_pipeline_with_a_short_last_batch(rng: np.random.Generator) -> None:
    indices, values, _ = make_maps(rng, 5, 6, 3, (3, 4))
    boxes = make_boxes(rng, 5)
    pipeline = (
        tf.data.Dataset.from_tensor_slices((indices, values, boxes))
        .batch(2)
        .map(lambda *given: soft_targets(*given, num_classes=6, output_size=(2, 2)))
    )
    assert pipeline.element_spec.shape.as_list() == [None, 6, 2, 2]
    expected = reference.soft_targets(indices, values, boxes, num_classes=6, output_size=(2, 2))
    np.testing.assert_allclose(np.concatenate(list(pipeline)), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("index_dtype", "value_dtype"),
    [("uint8", "bfloat16"), ("int32", "float32"), ("uint32", "float16"), ("int64", "float64")],
)
def test_any_dtype_gives_float32(index_dtype: str, value_dtype: str, rng: np.random.Generator) -> None:
    indices, values, rest = make_maps(rng, 2, 6, 3, (3, 3))
    values, boxes = np.round(values), make_boxes(rng, 2)
    expected = reference.soft_targets(indices, values, boxes, num_classes=6, rest=rest)
    found = soft_targets(
        tf.cast(indices, index_dtype),
        tf.cast(values, value_dtype),
        tf.cast(boxes, tf.float64),
        num_classes=6,
        rest=tf.cast(rest, tf.float32),
    )
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, **TOLERANCE)


@pytest.mark.parametrize("output_size", [(1, 1), (14, 14)], ids=str)
def test_the_dense_map_is_never_made(output_size: tuple[int, int]) -> None:
    n, num_classes, grid = 4, 1000, (15, 15)
    graph = tf.function(
        lambda *given: soft_targets(*given, num_classes=num_classes, output_size=output_size)
    ).get_concrete_function(
        tf.TensorSpec((n, 5, *grid), tf.uint16),
        tf.TensorSpec((n, 5, *grid), tf.float16),
        tf.TensorSpec((n, 4), tf.float32),
    )
    sizes = [
        made.shape.num_elements() or 0
        for operation in graph.graph.get_operations()
        for made in operation.outputs
        if made.shape.rank is not None
    ]
    assert len(sizes) > 50
    answer_size, maps_size = n * num_classes * output_size[0] * output_size[1], n * 5 * 15 * 15
    assert max(sizes) == max(answer_size, maps_size)


def test_a_box_or_class_in_numpy_arrays_that_cannot_be_is_refused(rng: np.random.Generator) -> None:
    indices, values, _ = make_maps(rng, 2, 6, 3, (3, 3))
    boxes = make_boxes(rng, 2)
    with pytest.raises(ValueError, match="class index 5, expected 0 to 4"):
        pool_labels(np.full_like(indices, 5), values, boxes, num_classes=5)
    with pytest.raises(BoxError, match="expected x0 < x1 and y0 < y1"):
        pool_labels(indices, values, boxes[:, ::-1], num_classes=6)


@pytest.mark.parametrize("variant", list(reference.Variant), ids=str)
def test_tensors_that_cannot_be_give_nan_of_their_own_sample(
    variant: reference.Variant, rng: np.random.Generator
) -> None:
    indices, values, _ = make_maps(rng, 6, 6, 3, (3, 3))
    boxes = np.tile(np.float32([0.1, 0.2, 0.6, 0.7]), (6, 1))
    expected = reference.soft_targets(indices, values, boxes, num_classes=6, variant=variant)
    wrong_classes = indices.astype(np.int32)
    wrong_classes[0, 1, 2, 0], wrong_classes[1, 0, 0, 0] = 6, -1
    boxes[2], boxes[3], boxes[4] = [0.5, 0, 0.5, 1], [0, np.nan, 1, 1], [0, 0, 224, 224]
    found = soft_targets(
        tf.constant(wrong_classes), values, tf.constant(boxes), num_classes=6, variant=variant
    ).numpy()
    bad = [0, 1, 2, 3, 4] if variant.is_localized else [0, 1]
    good = sorted(set(range(6)) - set(bad))
    assert np.isnan(found[bad]).all()
    np.testing.assert_allclose(found[good], expected[good], **TOLERANCE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes_xyxy": np.tile([0.0, 0.0, 1.0, 1.0], (2, 1))}, r"crop boxes: \(2, 4\), expected \(1, 4\)"),
        ({"values": np.zeros((1, 2, 3, 4))}, r"values \(1, 2, 3, 4\)"),
        ({"indices": np.zeros((1, 2, 3, 3))}, "indices are float64, expected integers"),
        ({"num_classes": 0}, "num_classes: 0"),
        ({"output_size": (0, 1)}, "output_size"),
        ({"temperature": -1.0}, "temperature: -1.0"),
        ({"variant": "nonsense"}, "nonsense"),
        ({"classes": [7]}, "classes: expected at least one, each from 0 to 4"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    maps = np.zeros((1, 2, 3, 3), np.uint16)
    given = {"indices": maps, "values": maps.astype(np.float16), "boxes_xyxy": [[0, 0, 1, 1]]}
    with pytest.raises(ValueError, match=message):
        soft_targets(**{**given, "num_classes": 5, **changed})


@pytest.mark.parametrize("shape", [None, (None, None, 3, 3)], ids=["rank", "k"])
def test_a_graph_has_to_know_all_but_the_number_of_samples(shape: Any) -> None:
    pool = tf.function(lambda *given: soft_targets(*given, num_classes=5))
    specs = [tf.TensorSpec(shape, tf.uint16), tf.TensorSpec(shape, tf.float16), tf.TensorSpec((None, 4))]
    with pytest.raises(ValueError, match=r"say them with tf\.ensure_shape"):
        pool.get_concrete_function(*specs)


def page_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return names of the page's first block, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELABEL_STORE_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    exec(page_blocks()[0], names)
    return names


def paint(height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture whose red is the column of a pixel and whose green its row, each in 200ths of the whole."""
    rows, columns = np.indices((height, width))
    parts = (columns + 0.5) / width * 200, (rows + 0.5) / height * 200, np.full((height, width), 9)
    return np.stack(parts, axis=-1).astype(np.uint8)


def test_the_crop_of_the_page_shows_its_box(page: dict[str, Any]) -> None:
    picture = tf.constant(paint(120, 200))
    for _ in range(20):
        crop, box = page["random_crop"](picture, 32)
        assert crop.shape == (32, 32, 3)
        x0, y0, x1, y1 = box.numpy()
        middle = crop.numpy()[8:24, 8:24, :2].mean(axis=(0, 1)) / 200
        np.testing.assert_allclose(middle, [(x0 + x1) / 2, (y0 + y1) / 2], atol=0.015)


def test_the_pipeline_of_the_page_trains_on_a_store(
    page: dict[str, Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    maps = make_store(tmp_path / "labels.zarr", rng, bad_images={3: "truncated"})
    for sample_id in maps.sample_ids:
        path = tmp_path / "train" / f"{sample_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint(30, 40)).save(path)
    page["model"] = tf.keras.Sequential([tf.keras.layers.GlobalAveragePooling2D(), tf.keras.layers.Dense(5)])
    exec(page_blocks()[1], page)
    ((images, targets),) = page["dataset"]
    assert (images.shape, targets.shape) == ((7, 224, 224, 3), (7, 5))
    np.testing.assert_allclose(tf.reduce_sum(targets, axis=1), 1, atol=1e-5)
    rows, boxes = np.array([6, 0, 2]), make_boxes(rng, 3)
    found = page["label"](tf.constant(rows), tf.zeros([3]), tf.constant(boxes))[1]
    expected = reference.soft_targets(maps.indices[rows], maps.values[rows], boxes, num_classes=5)
    np.testing.assert_allclose(found, expected, **TOLERANCE)


@pytest.mark.parametrize("num_classes", [5, 70_000], ids=["uint16", "uint32"])
def test_the_parquet_encoding_is_read_as_the_page_says(
    page: dict[str, Any], num_classes: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    manifest = make_manifest(n=4, grid=(1, 2), num_classes=num_classes, encoding="parquet")
    maps = make_store(tmp_path / "labels.parquet", rng, manifest, bad_images={1: "truncated"})
    exec(page_blocks()[2], page)
    found = list(page["maps"].as_numpy_iterator())
    assert [sample_id.decode() for sample_id, _, _ in found] == [maps.sample_ids[row] for row in (0, 2, 3)]
    for row, (_, indices, values) in zip((0, 2, 3), found, strict=True):
        np.testing.assert_array_equal(indices, maps.indices[row])
        np.testing.assert_array_equal(values, maps.values[row])


def write_records(path: Path, maps: LabelMaps) -> None:
    """Write label maps as the TFRecord export does, with a class index for every second."""

    def of_bytes(data: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))

    def of_integer(number: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))

    _, k, n_rows, n_cols = maps.indices.shape
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row, found in enumerate(maps[at] for at in range(len(maps))):
            features = {
                "sample_id": of_bytes(found.sample_id.encode()),
                "indices": of_bytes(found.indices.astype("<u2").tobytes()),
                "values": of_bytes(found.values.astype("<f2").tobytes()),
                "k": of_integer(k),
                "n_rows": of_integer(n_rows),
                "n_cols": of_integer(n_cols),
            }
            if found.rest is not None:
                features["rest"] = of_bytes(found.rest.astype("<f2").tobytes())
            if row % 2:
                features["class_index"] = of_integer(row)
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


@pytest.mark.parametrize("absent", list(AbsentRule), ids=str)
def test_records_are_parsed_as_the_page_says(
    page: dict[str, Any], absent: AbsentRule, tmp_path: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "labels.zarr", rng, make_manifest(grid=(2, 3), absent=absent))
    maps = open_store(tmp_path / "labels.zarr").read_rows(range(8))
    write_records(tmp_path / "labels.tfrecord" / "made-up-00000-of-00001.tfrecord", maps)
    exec(page_blocks()[3], page)
    found = list(page["maps"].as_numpy_iterator())
    assert [sample["class_index"] for sample in found] == [-1, 1, -1, 3, -1, 5, -1, 7]
    assert [sample["sample_id"].decode() for sample in found] == maps.sample_ids
    np.testing.assert_array_equal([sample["indices"] for sample in found], maps.indices)
    np.testing.assert_array_equal([sample["values"] for sample in found], maps.values)
    assert ("rest" in found[0]) == (absent is AbsentRule.REST)
    if maps.rest is not None:
        np.testing.assert_array_equal([sample["rest"] for sample in found], maps.rest)
    whole = np.tile(np.float32([0, 0, 1, 1]), (8, 1))
    targets = soft_targets(maps.indices, maps.values, whole, rest=maps.rest, num_classes=5)
    np.testing.assert_allclose(tf.reduce_sum(targets, axis=1), 1, atol=1e-5)
