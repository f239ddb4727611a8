"""One image file to one uint8 array: complete, verified, bit-exact, or refused with a reason.

8-bit RGB PNG, as in BreakHis, goes through libspng (imagecodecs): 1.5 times as fast as Pillow, and free of Python's lock.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from imagecodecs import spng_decode
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.errors import UserError

Array = NDArray[np.uint8]
SMALLEST_SIDE = 32
BREAKHIS_SIZES = ((700, 460), (700, 456))
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB_8 = b"\x08\x02"  # bit depth and colour type
# Pillow's and, as RuntimeError, libspng's.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, struct.error, Image.DecompressionBombError)


def decode(data: bytes, name: str, sizes: Sequence[tuple[int, int]] | None = None) -> Array:
    """Decode the bytes of one image file, called ``name`` in errors: uint8, height x width x 3.

    UserError for what is truncated, damaged, no image, not RGB, or of a (width, height) that is not among ``sizes``; None
    allows any from 32 pixels a side.
    """
    try:
        pixels = spng_decode(data) if _is_plain_png(data) else with_pillow(data, name)
    except DECODING_ERRORS as error:
        reason = f"cannot be read as an image ({' '.join(str(error).split())})"
        raise UserError(f"{name}: {reason}; replace it by an intact copy") from error
    height, width = pixels.shape[:2]
    if sizes is not None and (width, height) not in sizes:
        allowed = " or ".join(f"{w}x{h}" for w, h in sizes)
        advice = "restore the original, or use dataset=folders for rescaled copies"
        raise UserError(f"{name}: it is {width}x{height} pixels, BreakHis images are {allowed}; {advice}")
    if min(width, height) < SMALLEST_SIDE:
        raise UserError(f"{name}: it is {width}x{height} pixels, at least {SMALLEST_SIDE} a side are needed")
    return pixels


def _is_plain_png(data: bytes) -> bool:
    """Whether this is an 8-bit RGB PNG without colour key; verifies the checksum of every chunk, as decoders do not."""
    if data[:8] != _SIGNATURE:
        return False
    position, plain, kinds, view = 8, False, set(), memoryview(data)
    while b"IEND" not in kinds:
        end = position + 8 + int.from_bytes(view[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if end + 4 > len(data):
            raise OSError("the file ends early")
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise OSError(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        if kind == b"IHDR":
            plain = data[position + 16 : position + 18] == _RGB_8
        kinds.add(kind)
        position = end + 4
    return plain and b"tRNS" not in kinds


def with_pillow(data: bytes, name: str = "image") -> Array:
    """Decode any image that Pillow reads as RGB: uint8, height x width x 3; raises what Pillow raises."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    if image.mode != "RGB":
        raise UserError(f"{name}: its mode is {image.mode}, 8-bit RGB is needed; convert it")
    return np.asarray(image, dtype=np.uint8)


def on_canvas(pixels: Array, height: int, width: int) -> Array:
    """Fit an image onto a canvas without distortion: equal scale in both directions, centre kept (uint8, H x W x 3)."""
    native_height, native_width = pixels.shape[:2]
    if (native_height, native_width) == (height, width):
        return pixels
    scale = min(native_width / width, native_height / height)
    box_width, box_height = width * scale, height * scale
    left, top = (native_width - box_width) / 2, (native_height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image, dtype=np.uint8)


def image_height(width: int) -> int:
    """Height in pixels of an image of the real set's shape, 700 x 460."""
    return round(width * 460 / 700)


def canvas_of(sizes: Sequence[tuple[int, int]], short_side: int) -> tuple[int, int]:
    """(height, width) with the given short side and the commonest aspect ratio of (width, height) ``sizes``."""
    width, height = max(Counter(sizes).items(), key=lambda item: (item[1], item[0]))[0]
    longer = round(short_side * max(width, height) / min(width, height))
    return (short_side, longer) if width >= height else (longer, short_side)
