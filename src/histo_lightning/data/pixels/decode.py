"""One image file to one uint8 array: complete, verified, bit-exact, or refused with a reason.

8-bit RGB PNG, as in BreakHis, goes through libspng (imagecodecs): 1.5 times as fast as Pillow, and free of Python's lock.
"""

import io
import stat
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from imagecodecs import spng_decode
from numpy.typing import NDArray
from PIL import Image, ImageOps

from histo_lightning.errors import UserError

Array = NDArray[np.uint8]
SMALLEST_SIDE = 32
LONGEST_SHAPE = 16  # times as long as the other side
MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26  # more is a bomb; an image of BreakHis has 0.3 million
MOST_BYTES = 2**28  # of a file
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # of Pillow's 40 others one starts a program (EPS)
BREAKHIS_SIZES = ((700, 460), (700, 456))
_SIGNATURE, _RGB_8 = b"\x89PNG\r\n\x1a\n", b"\x08\x02"  # the latter are bit depth and colour type
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
DECODING_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, struct.error, *BOMBS)  # also libspng's
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def image_bytes(path: Path) -> bytes:
    """The content of an image file; UserError where it cannot be read: a FIFO or a device would never end."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            raise OSError(f"it is no file, or has more than {MOST_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); restore the file") from error


def native_size(path: Path) -> tuple[int, int] | None:
    """(width, height) that an image file announces; None where it cannot be read, as decoding it will say."""
    with suppress(*DECODING_ERRORS):
        if path.is_file():
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    return None


def decode(data: bytes, name: str, sizes: Sequence[tuple[int, int]] | None = None) -> Array:
    """Decode the bytes of one image file, called ``name`` in errors: uint8, height x width x 3.

    UserError for what is truncated, damaged, no image, not 8-bit RGB, of several frames or pages, or of a (width, height)
    that is not among ``sizes``; None allows any from 32 pixels a side, but no strip. Pixels are not turned as EXIF says.
    """
    try:
        pixels = spng_decode(data) if _is_plain_png(data) else with_pillow(data, name)
    except DECODING_ERRORS as error:
        words = " ".join(str(error).partition(" <_io")[0].split())  # Pillow names the object that it read
        problem = f"cannot be read as an image ({words})"
        raise UserError(f"{name}: {problem}; replace it by an intact copy") from error
    height, width = pixels.shape[:2]
    if sizes is not None and (width, height) not in sizes:
        allowed = " or ".join(f"{w}x{h}" for w, h in sizes)
        advice = "restore the original, or use dataset=folders for rescaled copies"
        raise UserError(f"{name}: it is {width}x{height} pixels, BreakHis images are {allowed}; {advice}")
    if min(width, height) < SMALLEST_SIDE:
        raise UserError(f"{name}: it is {width}x{height} pixels, at least {SMALLEST_SIDE} a side are needed")
    if max(width, height) > LONGEST_SHAPE * min(width, height):
        raise UserError(f"{name}: it is {width}x{height} pixels, a strip; give a field of the tissue")
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
            width, height = struct.unpack_from(">II", data, position + 8)
            if width * height > MOST_PIXELS or data[position + 16] > 8:
                raise OSError(f"{width}x{height} pixels of {data[position + 16]} bits a channel are too many")
        kinds.add(kind)
        position = end + 4
    return plain and not kinds & {b"tRNS", b"acTL"}


def with_pillow(data: bytes, name: str = "image") -> Array:
    """Decode any image that Pillow reads as RGB: uint8, height x width x 3; raises what Pillow raises."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: with a camera's preview
        bits = int(np.max(getattr(image, "tag_v2", {}).get(258, 8)))  # a channel, of TIFF
        image.load()
    if image.mode != "RGB" or frames > 1 or bits > 8:
        about = f"its mode is {image.mode}, with {frames} frame(s) of {bits} bits"
        raise UserError(f"{name}: {about}; one 8-bit RGB image is needed, convert it")
    return np.asarray(image, dtype=np.uint8)


def on_canvas(pixels: Array, height: int, width: int) -> Array:
    """Fit an image onto a canvas without distortion: equal scale in both directions, centre kept (uint8, H x W x 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    fitted = ImageOps.fit(Image.fromarray(pixels), (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted, dtype=np.uint8)


def image_height(width: int) -> int:
    """Height in pixels of an image of the real set's shape, 700 x 460."""
    return round(width * 460 / 700)


def canvas_of(sizes: Sequence[tuple[int, int]], short_side: int) -> tuple[int, int]:
    """(height, width) with the given short side and the commonest aspect ratio of (width, height) ``sizes``."""
    width, height = max(Counter(sizes).items(), key=lambda item: (item[1], item[0]))[0]
    longer = round(short_side * max(width, height) / min(width, height))
    return (short_side, longer) if width >= height else (longer, short_side)
