"""The exceptions of relabel-store.

::

    RelabelStoreError
    ├── FormatError                 (ValueError)         files that do not follow the format
    │   ├── ManifestError                                the manifest is not one
    │   ├── UnknownEncodingError                         an encoding that no release of ours wrote
    │   ├── UnsupportedVersionError                      a known encoding in a version we do not read
    │   └── DamagedFileError                             size or digest is not what was recorded
    ├── StoreNotFoundError          (FileNotFoundError)  there is no store at this path
    ├── TargetExistsError           (FileExistsError)    the output path is taken by something else
    ├── SampleNotFoundError         (LookupError)        no such sample id or row
    ├── NoLabelError                (LookupError)        the row exists and has no label
    ├── OptionError                 (ValueError)         an option that is out of range
    ├── UnfinishedStoreError        (ValueError)         a store that has to be finished for this
    ├── NotEnoughSpaceError         (OSError)            the disk is too small for what was asked
    ├── NotWritableError            (OSError)            a place where nothing may be written
    │   └── CacheError                                   a cache directory that cannot be used
    ├── ObjectStoreError            (OSError)            an object store that cannot be reached, or refuses
    ├── BoxError                    (ValueError)         a crop box that encloses no part of an image
    ├── CropError                   (ValueError)         a transform whose crop cannot be followed
    ├── LabelMismatchError          (ValueError)         labels that are not of these images
    │   ├── JoinError                                    images without labels, or labels without images
    │   ├── ClassOrderError                              classes in another order
    │   └── GeometryError                                images that show something else than was labelled
    ├── LabelSourceError            (ValueError)         labels of another form that cannot be used as a whole
    ├── ImageSourceError            (ValueError)         the images as a whole cannot be used
    ├── ImageReadError              (OSError)            one image that cannot be read, after retries
    ├── BadImageError               (ValueError)         one image that cannot be decoded
    ├── TeacherError                (ValueError)         the teacher cannot be used
    │   ├── UnknownTeacherError                          no teacher of this name
    │   ├── WeightsError                                 weights that cannot be had or do not fit
    │   ├── NoDenseMapError                              an architecture without a dense map
    │   ├── IdentityError                                the dense logits do not average to the logits
    │   └── NonFiniteLogitsError                         NaN or infinity in the logits to be kept
    ├── ValueRangeError             (ValueError)         a score too large for its encoding
    ├── AbsentRuleError             (ValueError)         negative logits under an unnamed absent rule
    ├── EngineError                 (RuntimeError)       a cluster that cannot be had
    ├── MissingDependencyError      (ImportError)        an extra that is not installed
    ├── SettingsChangedError        (ValueError)         a resumed build with other labels in mind
    ├── ImagesChangedError          (ValueError)         a resumed build whose images are not the same
    ├── BadImageStop                (ValueError)         ``--on-bad-image stop`` met a bad image
    └── StoreBusyError              (RuntimeError)       another process is building the same part
"""

from __future__ import annotations

__all__ = [
    "AbsentRuleError",
    "BadImageError",
    "BadImageStop",
    "BoxError",
    "CacheError",
    "ClassOrderError",
    "CropError",
    "DamagedFileError",
    "EngineError",
    "FormatError",
    "GeometryError",
    "IdentityError",
    "ImageReadError",
    "ImageSourceError",
    "ImagesChangedError",
    "JoinError",
    "LabelMismatchError",
    "LabelSourceError",
    "ManifestError",
    "MissingDependencyError",
    "NoDenseMapError",
    "NoLabelError",
    "NonFiniteLogitsError",
    "NotEnoughSpaceError",
    "NotWritableError",
    "ObjectStoreError",
    "OptionError",
    "RelabelStoreError",
    "SampleNotFoundError",
    "SettingsChangedError",
    "StoreBusyError",
    "StoreNotFoundError",
    "TargetExistsError",
    "TeacherError",
    "UnfinishedStoreError",
    "UnknownEncodingError",
    "UnknownTeacherError",
    "UnsupportedVersionError",
    "ValueRangeError",
    "WeightsError",
]


class RelabelStoreError(Exception):
    """Base of every error that relabel-store raises on purpose."""


class FormatError(RelabelStoreError, ValueError):
    """Files that do not follow the format specification."""


class ManifestError(FormatError):
    """A manifest that its schema or its own contents contradict."""


class UnknownEncodingError(FormatError):
    """An encoding name that this release has never heard of."""


class UnsupportedVersionError(FormatError):
    """A format or encoding that this release knows, in a version it does not read."""


class DamagedFileError(FormatError):
    """A file whose size or digest is not the recorded one."""


class StoreNotFoundError(RelabelStoreError, FileNotFoundError):
    """There is no store at the path."""


class TargetExistsError(RelabelStoreError, FileExistsError):
    """The output path is taken by something that is not ours to continue."""


class SampleNotFoundError(RelabelStoreError, LookupError):
    """No sample of this id, or no such row."""


class NoLabelError(RelabelStoreError, LookupError):
    """The row exists and has no label: its image was bad, or its part is not built."""


class OptionError(RelabelStoreError, ValueError):
    """An option that is out of range; on the command line, wrong usage."""


class UnfinishedStoreError(RelabelStoreError, ValueError):
    """A store that has to be finished for what was asked."""


class NotEnoughSpaceError(RelabelStoreError, OSError):
    """The disk has no room for what was asked."""


class NotWritableError(RelabelStoreError, OSError):
    """A place that is read-only, or that this user may not write to."""


class CacheError(NotWritableError):
    """A cache directory that cannot be used."""


class ObjectStoreError(RelabelStoreError, OSError):
    """An object store that cannot be reached, refuses what was asked, or cannot do it."""


class BoxError(RelabelStoreError, ValueError):
    """A crop box that encloses no part of an image, or is not in fractions of it."""


class LabelMismatchError(RelabelStoreError, ValueError):
    """Labels that are not of these images."""


class JoinError(LabelMismatchError):
    """Images without labels, or labels without images, where neither is expected."""


class ClassOrderError(LabelMismatchError):
    """Classes of the images that come in another order than those of the targets."""


class GeometryError(LabelMismatchError):
    """An image that shows something else than the one that was labelled."""


class LabelSourceError(RelabelStoreError, ValueError):
    """Labels of another form that cannot be used as a whole: not recognised, contradictory, or nothing for a map."""


class ImageSourceError(RelabelStoreError, ValueError):
    """The images as a whole cannot be used: none found, ids that collide, names that are not UTF-8."""


class ImageReadError(RelabelStoreError, OSError):
    """One image whose bytes cannot be read; the disk or the network may be better later."""


class BadImageError(RelabelStoreError, ValueError):
    """One image that cannot be decoded."""


class TeacherError(RelabelStoreError, ValueError):
    """The teacher cannot be used."""


class UnknownTeacherError(TeacherError):
    """No teacher of this name."""


class WeightsError(TeacherError):
    """Weights that cannot be had, cannot be read, or do not fit the architecture."""


class NoDenseMapError(TeacherError):
    """An architecture whose head does not give a score for each location."""


class IdentityError(TeacherError):
    """The mean of the dense logits is not the teacher's own logits."""


class NonFiniteLogitsError(TeacherError):
    """NaN or infinity among the logits to be kept."""


class ValueRangeError(RelabelStoreError, ValueError):
    """A score past what its encoding holds within its error bound."""


class AbsentRuleError(RelabelStoreError, ValueError):
    """Negative logits, which "an absent class counts as 0" would rank below the absent ones."""


class EngineError(RelabelStoreError, RuntimeError):
    """A cluster that cannot be had."""


class MissingDependencyError(RelabelStoreError, ImportError):
    """An optional dependency that is not installed; the message names the extra."""


class SettingsChangedError(RelabelStoreError, ValueError):
    """A resumed build whose arguments would make other labels."""


class ImagesChangedError(RelabelStoreError, ValueError):
    """A resumed build whose images are not those it began with."""


class CropError(RelabelStoreError, ValueError):
    """The region of the image that a crop shows is not known any more, or never was."""


class BadImageStop(RelabelStoreError, ValueError):  # noqa: N818 - named after the option it answers
    """An image could not be decoded and ``--on-bad-image stop`` was asked for."""


class StoreBusyError(RelabelStoreError, RuntimeError):
    """Another process on this host is building the same thing."""
