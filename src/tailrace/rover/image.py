"""The rover's image: a file of yours, or the panorama, which is painted at the first start."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs
from PIL import Image, UnidentifiedImageError

PANORAMA = "panorama-1.jpg"
"""The name of the panorama's file. A change of the painting changes the number, so that old files are not served."""


class UnusableImage(Exception):
    """An image cannot be read, is not an image, or cannot be kept. The text is one line for the user."""


MEDIA_TYPES = {
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # from a phone: a JPEG with more pictures behind it
    "PNG": "image/png",
    "WEBP": "image/webp",
}
"""The formats that browsers show, by Pillow's names."""


def check_image(path: Path) -> str:
    """Return the media type of an image. Raise UnusableImage if it cannot be served."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for its writer
            raise UnusableImage(f"expected an image, but {path} is not a regular file")
        with Image.open(path) as image:
            image.draft("L", (1, 1))  # a JPEG's eighth part takes less time and memory, and needs all of the file
            image.load()
            return MEDIA_TYPES[image.format or ""]
    except FileNotFoundError:
        raise UnusableImage(f"expected an image at {path}, but there is no such file") from None
    except (UnidentifiedImageError, KeyError, SyntaxError, ValueError):  # `load` raises what its format raises
        raise UnusableImage(f"expected an image that a browser shows, but {path} is not one") from None
    except Image.DecompressionBombError:
        raise UnusableImage(f"expected fewer pixels of an image than {path} has") from None
    except OSError as error:
        raise UnusableImage(f"cannot read the image {path}: {error.strerror or error}") from None


def _paint() -> bytes:
    from .panorama import paint  # numpy takes a while to import

    return paint()


def panorama_path(
    folder: Path | None = None, *, paint: Callable[[], bytes] = _paint, tell: Callable[[str], None] = lambda _: None
) -> Path:
    """Return the file of the panorama in a folder, by default the user's cache. Paint it if it is missing or damaged.

    Painting takes some seconds of all processors. `tell` is called with a line before it begins, and with one after it.
    Raise UnusableImage if the file cannot be written.
    """
    folder = folder or platformdirs.user_cache_path("tailrace")
    path = folder / PANORAMA
    with suppress(UnusableImage):  # it is missing or damaged
        check_image(path)
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tell("painting the panorama, once: this takes some seconds")
        _write(path, paint)
    except OSError as error:
        raise UnusableImage(f"cannot keep the panorama in {folder}: {error.strerror or error}") from None
    tell(f"painted {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return path


def _write(path: Path, make: Callable[[], bytes]) -> None:
    """Write a file under another name, and rename it when it is complete. Other processes may do so, too."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as part:
        try:
            part.write(make())
            part.flush()
            os.replace(part.name, path)
        except BaseException:  # Ctrl-C during the painting, too: it must leave no part behind
            os.unlink(part.name)
            raise
