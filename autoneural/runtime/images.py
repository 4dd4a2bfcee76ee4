"""Pictures -> features, once per picture: a bounded cache keyed by the content of the pixels."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoneural.manifest import TensorSpec
from autoneural.runtime.chain import Graph
from autoneural.runtime.session import decode, encode, same_encoding
from autoneural.runtime.watch import NOBODY, Watch

CACHED_IMAGES = 32


@dataclass(frozen=True)
class EncodedImages:
    """Features of each picture [N, H] (integers for integer graphs), their hashes, and the cost."""

    features: list[np.ndarray]
    digests: list[bytes]
    encoded: int
    ms: float


class ImageEncoder:
    """Runs the vision graph. The key is a hash of pixels: a path may show another picture later."""

    def __init__(
        self, session: Graph, wanted: TensorSpec | None = None, capacity: int = CACHED_IMAGES
    ) -> None:
        """`wanted` is the input that features are for, None where it is encoded as they are."""
        self._session = session
        self._wanted = wanted
        self._spec = session.inputs["pixel_values"]
        self._capacity = capacity
        self._cache: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def __call__(
        self, pixel_values: np.ndarray, watch: Watch = NOBODY, tenant: bytes = b""
    ) -> EncodedImages:
        """Features of uint8 pictures [N, 3, S, S]. Before each, `watch` may end it.

        The hashes, and what is kept, are those of one `tenant`.
        """
        start, encoded = time.perf_counter(), 0
        digests = [hashlib.sha256(tenant + pixels.tobytes()).digest() for pixels in pixel_values]
        features = []
        for digest, pixels in zip(digests, pixel_values, strict=True):
            watch.step()
            encoded += digest not in self._cache
            features.append(self._features(digest, pixels))
        return EncodedImages(features, digests, encoded, (time.perf_counter() - start) * 1e3)

    def _features(self, digest: bytes, pixels: np.ndarray) -> np.ndarray:
        if digest not in self._cache:
            real = pixels[None].astype(np.float32) / np.float32(255)
            outputs = self._session.run({"pixel_values": encode(real, self._spec)})
            features, made = outputs["image_features"][0], self._session.outputs["image_features"]
            if self._wanted is not None and not same_encoding(made, self._wanted):
                features = encode(decode(features, made), self._wanted)
            self._cache[digest] = features
        self._cache.move_to_end(digest)
        features = self._cache[digest]
        while len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        return features


def embed(
    table: np.ndarray, ids: np.ndarray, image_id: int, features: Sequence[np.ndarray]
) -> np.ndarray:
    """Rows [T, H] of tokens, the features of pictures in the places of theirs."""
    rows = np.asarray(table[ids])
    if features:
        rows[ids == image_id] = np.concatenate(features)
    return rows
