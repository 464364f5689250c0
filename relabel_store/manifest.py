"""The manifest: what a store's numbers mean, as an object and as JSON."""

from __future__ import annotations

import re
import types
import typing
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum, StrEnum
from typing import Any, Self, TypeGuard, TypeVar

from relabel_store import spec
from relabel_store.canonical import canonical_json, digest_of
from relabel_store.errors import ManifestError, UnknownEncodingError, UnsupportedVersionError
from relabel_store.schema import schema_errors

SCHEMA = "manifest-v1"

T = TypeVar("T")

# Of a field that came after the first stores were written: their manifests read and write as they always did.
OMITTED_BY_DEFAULT = {"omitted by default": True}


class State(StrEnum):
    """Whether the store is finished."""

    BUILDING = "building"
    COMPLETE = "complete"


class AbsentRule(StrEnum):
    """What the score of a class outside the top k is taken to be."""

    ZERO = "zero"  # logit 0, as in the paper
    REST = "rest"  # the classes not kept share the stored log-sum-exp evenly


class Compression(StrEnum):
    """How hard a writer tries to make files small."""

    SMALL = "small"
    """For builds, whose teacher is slower than the compressor."""
    FAST = "fast"


@dataclass(frozen=True)
class Encoding:
    """How the arrays lie on disk."""

    name: str = spec.ENCODING_ZARR
    version: str = spec.ENCODING_VERSIONS[spec.ENCODING_ZARR]
    compression: Compression = field(default=Compression.SMALL, metadata=OMITTED_BY_DEFAULT)

    @classmethod
    def of(cls, name: str, compression: Compression = Compression.SMALL) -> Encoding:
        """Return an encoding in the version that this release writes."""
        return cls(name, spec.ENCODING_VERSIONS[name], compression)


@dataclass(frozen=True)
class LabelSpec:
    """Shape and meaning of the label maps."""

    grid: tuple[int, int]  # (n_rows, n_cols)
    k: int
    num_classes: int
    values: str = "logits"
    value_step: float | str = spec.DEFAULT_VALUE_STEP
    absent: AbsentRule = AbsentRule.ZERO
    axes: tuple[str, ...] = spec.DIMENSIONS


@dataclass(frozen=True)
class Classes:
    """The classes in the order of the class indices."""

    digest: str | None  # of ids, or of names where there are no ids
    ids: tuple[str, ...] | None = None  # what class folders are called, e.g. WordNet ids
    names: tuple[str, ...] | None = None  # for people
    source: str | None = None

    @classmethod
    def of(cls, ids: Sequence[str] | None, names: Sequence[str] | None, source: str | None) -> Classes:
        """Return the class list with its digest filled in."""
        listed = ids if ids is not None else names
        digest = None if listed is None else digest_of(canonical_json({"classes": list(listed)}))
        return cls(
            digest=digest,
            ids=None if ids is None else tuple(ids),
            names=None if names is None else tuple(names),
            source=source,
        )

    def index_of_folder(self) -> dict[str, int]:
        """Return the class index of each folder name, in NFC: by class id, or by name where there are no ids."""
        listed = self.ids if self.ids is not None else self.names
        counts = Counter(listed or ())
        return {
            unicodedata.normalize("NFC", name): index
            for index, name in enumerate(listed or ())
            if counts[name] == 1
        }

    def name_of(self, class_index: int) -> str:
        """Return what to call a class in front of people."""
        listed = self.names if self.names is not None else self.ids
        return f"class {class_index}" if listed is None else listed[class_index]


class Resize(StrEnum):
    """Which part of an image its label map covers."""

    SQUASH = "squash"
    """All of it: it was resized to the input size, whatever its shape."""
    CENTER_CROP = "center-crop"
    """A square in its middle: it was resized by its shorter side, then cropped."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Geometry:
    """How an image became the teacher's input, so which part of it a cell covers; None where nobody knows."""

    input_size: tuple[int, int] | None  # (height, width) in pixels
    interpolation: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    resize: Resize = Resize.SQUASH
    color: str = "RGB"
    exif_orientation: str = "ignored"


@dataclass(frozen=True)
class Weights:
    """Where the teacher's weights came from, and which they are."""

    origin: str
    digest: str | None


@dataclass(frozen=True)
class Dense:
    """How the classifier was made dense, and the proof."""

    kind: str  # exact | per-location | unknown
    identity_error: float | None  # of the pooled dense logits, relative to the logits' standard deviation
    head: str = field(default="replay", metadata=OMITTED_BY_DEFAULT)  # replay | linearized


@dataclass(frozen=True)
class TeacherInfo:
    """The model that produced the labels."""

    name: str
    architecture: str | None
    tag: str | None
    weights: Weights
    dense: Dense
    precision: str
    device: str  # kind only: cpu, cuda
    versions: Mapping[str, str]
    flip: bool = field(
        default=False, metadata=OMITTED_BY_DEFAULT
    )  # maps are averaged with the mirror image's


@dataclass(frozen=True)
class ImagesInfo:
    """The images that were labelled."""

    name: str
    kind: str
    count: int
    digest: str  # of the sorted sample ids
    order: str


@dataclass(frozen=True)
class Layout:
    """Sizes of the pieces on disk, in rows."""

    shard_rows: int
    chunk_rows: int


@dataclass(frozen=True)
class BuildInfo:
    """What besides the arguments decides the last bit of a value, so it is fixed when a build starts."""

    batch_size: int
    threads: int
    is_compiled: bool = field(default=False, metadata=OMITTED_BY_DEFAULT)


@dataclass(frozen=True)
class Agreement:
    """How often the pooled label of a whole image is the class of its folder."""

    samples: int
    agreeing: int


@dataclass(frozen=True)
class Statistics:
    """What was counted while building."""

    labelled: int
    bad_images: int
    exif_oriented: int  # images whose EXIF orientation was ignored
    distinct_classes_mean: float | None
    value_min: float | None
    value_max: float | None
    negative_fraction: float | None
    winning_cells: tuple[int, ...]  # for each class, the number of cells where it is the best
    agreement: Agreement | None


@dataclass(frozen=True)
class Manifest:
    """The description of a store: ``docs/reference/format-v1.md`` explains every field.

    Raises
    ------
    ManifestError
        Two fields contradict each other.
    """

    name: str
    num_samples: int
    label_map: LabelSpec
    classes: Classes
    geometry: Geometry
    teacher: TeacherInfo
    images: ImagesInfo
    layout: Layout
    build: BuildInfo | None = None
    statistics: Statistics | None = None
    licence: str | None = None
    citation: tuple[str, ...] = ()
    state: State = State.BUILDING
    encoding: Encoding = Encoding()
    format_version: str = spec.FORMAT_VERSION

    def __post_init__(self) -> None:
        for problem in self._contradictions():
            raise ManifestError(f"manifest of {self.name!r}: {problem}")

    def _contradictions(self) -> typing.Iterator[str]:
        label_map, classes = self.label_map, self.classes
        if label_map.k > label_map.num_classes:
            yield f"k is {label_map.k}, expected at most the class count, {label_map.num_classes}"
        for what, listed in (("ids", classes.ids), ("names", classes.names)):
            if listed is not None and len(listed) != label_map.num_classes:
                yield f"{len(listed)} class {what}, expected {label_map.num_classes}"
        if classes != Classes.of(classes.ids, classes.names, classes.source):
            yield f"class digest is {classes.digest}, which is not that of the listed classes"
        if self.images.count != self.num_samples:
            yield f"images.count is {self.images.count}, num_samples {self.num_samples}"
        if classes.ids is not None and len(set(classes.ids)) != len(classes.ids):
            yield "class ids occur more than once"
        if self.statistics is not None:
            yield from self._miscounts(self.statistics)
        if self.layout.shard_rows % self.layout.chunk_rows:
            yield f"shard_rows {self.layout.shard_rows} is no multiple of chunk_rows {self.layout.chunk_rows}"
        if (self.state is State.COMPLETE) != (self.statistics is not None):
            yield f"state is {self.state.value!r}, statistics are {'there' if self.statistics else 'missing'}"

    def _miscounts(self, statistics: Statistics) -> typing.Iterator[str]:
        cells = statistics.labelled * self.label_map.grid[0] * self.label_map.grid[1]
        winning = statistics.winning_cells
        if statistics.labelled + statistics.bad_images > self.num_samples:
            yield f"{statistics.labelled} labelled and {statistics.bad_images} bad images of {self.num_samples}"
        if len(winning) != self.label_map.num_classes or sum(winning) != cells:
            found = f"{sum(winning)} cells of {len(winning)} classes"
            yield f"winning_cells: {found}, expected {cells} of {self.label_map.num_classes}"
        agreement = statistics.agreement
        if agreement is not None and agreement.agreeing > agreement.samples:
            yield f"{agreement.agreeing} of {agreement.samples} samples agree"

    @property
    def num_parts(self) -> int:
        """Number of shards of each array."""
        return -(-self.num_samples // self.layout.shard_rows)

    def rows_of_part(self, part: int) -> range:
        """Return the rows of a part."""
        start = part * self.layout.shard_rows
        return range(start, min(start + self.layout.shard_rows, self.num_samples))

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON types."""
        document: dict[str, Any] = _to_json(self)
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the manifest of a JSON document; fields of a later minor version are ignored.

        Raises
        ------
        UnsupportedVersionError
            Another major version of the format, or a known encoding in a version that is not read here.
        UnknownEncodingError
            An encoding of another name.
        ManifestError
            The document breaks the schema.
        """
        require_readable_version(document)
        for problem in schema_errors(document, SCHEMA):
            raise ManifestError(f"manifest: {problem}; the schema is {SCHEMA}.schema.json")
        try:
            return _from_json(cls, document)
        except UnicodeEncodeError as error:
            raise ManifestError(f"manifest: {error}") from None

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON."""
        return digest_of(canonical_json(self.to_dict()))

    def completed(self, statistics: Statistics) -> Manifest:
        """Return the manifest of the finished store."""
        return replace(self, state=State.COMPLETE, statistics=statistics)

    def reopened(self) -> Manifest:
        """Return the manifest of the same store, being built again in part."""
        return replace(self, state=State.BUILDING, statistics=None)


class ClaimedManifest(Manifest):
    """A manifest as its JSON has it, also where two fields contradict each other: for whoever looks for that."""

    def __post_init__(self) -> None:
        """Refuse nothing."""


def require_readable_version(document: Mapping[str, Any]) -> None:
    """Check that this release reads the format and the encoding that a manifest names.

    Raises
    ------
    UnsupportedVersionError, UnknownEncodingError, ManifestError
        As for `Manifest.from_dict`; the last where it names none.
    """
    version = document.get("format_version")
    if not is_version(version):
        raise ManifestError(f"manifest: format_version is {version!r}, expected text such as '1.0'")
    require_major("store format", version, spec.FORMAT_VERSION)
    encoding = document.get("encoding")
    if not isinstance(encoding, Mapping) or not is_version(encoding.get("version")):
        raise ManifestError(f"manifest: encoding is {encoding!r}, expected a name and a version")
    name = encoding.get("name")
    if not isinstance(name, str) or name not in spec.ENCODING_VERSIONS:
        raise UnknownEncodingError(
            f"encoding {name!r}: this release knows {' and '.join(map(repr, spec.ENCODING_VERSIONS))}; "
            "a later release of relabel-store may read it"
        )
    require_major(f"encoding {name!r}", encoding["version"], spec.ENCODING_VERSIONS[name])


def is_version(value: object) -> TypeGuard[str]:
    """Tell whether a JSON value is a version as the format writes them: text of a major and a minor number."""
    return isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", value) is not None


def require_major(what: str, found: str, ours: str) -> None:
    """Check that a version has the major number of ours.

    Raises
    ------
    UnsupportedVersionError
        It has another, so that nobody knows what has another meaning there.
    """
    major = ours.split(".")[0]
    if found.split(".")[0] != major:
        raise UnsupportedVersionError(
            f"{what}: version {found}, this release reads {major}.x; upgrade relabel-store to read it"
        )


def _to_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if is_dataclass(value):
        return {
            member.name: _to_json(getattr(value, member.name))
            for member in fields(value)
            if member.metadata != OMITTED_BY_DEFAULT or getattr(value, member.name) != member.default
        }
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    return value


def _from_json(target: type[T], document: Mapping[str, Any]) -> T:
    """Build a dataclass, and those inside it, from JSON that its schema has accepted."""
    hints = typing.get_type_hints(target)
    known = {
        field.name: _convert(hints[field.name], document[field.name])
        for field in fields(target)  # type: ignore[arg-type]  # every target here is a dataclass
        if field.name in document
    }
    return target(**known)


def _convert(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is types.UnionType:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return value if value is None or len(options) > 1 else _convert(options[0], value)
    if is_dataclass(hint) and isinstance(hint, type):
        return _from_json(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if hint is int:
        return int(value)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, entry) for entry in value)
    return value
