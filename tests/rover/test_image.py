from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tailrace.rover.image import PANORAMA, UnusableImage, check_image, panorama_path


def refused(path: Path) -> str:
    with pytest.raises(UnusableImage) as caught:
        check_image(path)
    return str(caught.value)


def encoded(kind: str, size: int = 8, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_an_image_has_a_media_type_whatever_its_name(kind: str, media_type: str, tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(encoded(kind))
    assert check_image(path) == media_type


def test_a_jpeg_of_several_pictures_is_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(encoded("MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))]))
    assert check_image(path) == "image/jpeg"


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jpg"
    assert refused(missing) == f"expected an image at {missing}, but there is no such file"
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    assert refused(text) == f"expected an image that a browser shows, but {text} is not one"
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert str(empty) in refused(empty)
    fifo = tmp_path / "fifo.jpg"
    os.mkfifo(fifo)
    for other in (tmp_path, fifo):
        assert refused(other) == f"expected an image, but {other} is not a regular file"
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    assert refused(loop) == f"cannot read the image {loop}: Too many levels of symbolic links"


def test_an_image_that_browsers_do_not_show_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    path.write_bytes(encoded("TIFF"))
    assert refused(path) == f"expected an image that a browser shows, but {path} is not one"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_broken_image_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(encoded(kind, 64)[:-40])
    assert refused(path).startswith(f"cannot read the image {path}: ")


def test_an_image_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)  # an error is twice as much
    path = tmp_path / "gigapixels.png"
    path.write_bytes(encoded("PNG"))
    assert refused(path) == f"expected fewer pixels of an image than {path} has"


PAINTED = encoded("BMP", 708)  # 1.5 MB


def test_the_panorama_is_painted_once(tmp_path: Path) -> None:
    told: list[str] = []
    folder = tmp_path / "some" / "cache"
    path = panorama_path(folder, paint=lambda: PAINTED, tell=told.append)
    assert (path, path.read_bytes()) == (folder / PANORAMA, PAINTED)
    assert told == ["painting the panorama, once: this takes some seconds", f"painted {path} (1.5 MB)"]
    assert panorama_path(folder, paint=lambda: b"another", tell=told.append) == path
    assert (path.read_bytes(), len(told)) == (PAINTED, 2)
    assert os.listdir(folder) == [PANORAMA]


@pytest.mark.parametrize("kept", [0, 1_000_000])
def test_a_panorama_that_was_kept_only_in_part_is_painted_again(kept: int, tmp_path: Path) -> None:
    (tmp_path / PANORAMA).write_bytes(PAINTED[:kept])
    assert panorama_path(tmp_path, paint=lambda: PAINTED).read_bytes() == PAINTED


def test_a_painting_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        panorama_path(tmp_path, paint=fail)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableImage, match=r"cannot keep the panorama in .*/file: (File exists|Not a directory)"):
        panorama_path(tmp_path / "file", paint=lambda: b"")


def test_the_cache_is_the_users_and_numpy_is_imported_only_to_paint(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tailrace.rover import panorama_path\n"
        "from pathlib import Path\nimport platformdirs\n"
        "folder = platformdirs.user_cache_path('tailrace')\nfolder.mkdir(parents=True)\n"
        f"(folder / {PANORAMA!r}).write_bytes({encoded('JPEG')!r})\n"
        "print(panorama_path() == folder / 'panorama-1.jpg', 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["True", "False"], "")
