from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tailrace.rover.image import PANORAMA, UnusableImage, check_image, panorama_path


def refused(path: Path) -> str:
    with pytest.raises(UnusableImage) as caught:
        check_image(path)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_an_image_has_a_media_type_whatever_its_name(kind: str, media_type: str, tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    Image.new("RGB", (8, 8)).save(path, kind)
    assert check_image(path) == media_type


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jpg"
    assert refused(missing) == f"expected an image at {missing}, but there is no such file"
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    assert refused(text) == f"expected an image that a browser shows, but {text} is none"
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert str(empty) in refused(empty)
    assert refused(tmp_path) == f"cannot read the image {tmp_path}: Is a directory"


def test_a_broken_image_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    path = tmp_path / "broken.png"
    path.write_bytes(file.getvalue()[:-20])
    assert str(path) in refused(path)


def test_the_panorama_is_painted_once(tmp_path: Path) -> None:
    told: list[str] = []
    folder = tmp_path / "some" / "cache"
    path = panorama_path(folder, paint=lambda: b"x" * 1_500_000, tell=told.append)
    assert (path, path.read_bytes()) == (folder / PANORAMA, b"x" * 1_500_000)
    assert told == ["painting the panorama, once: this takes some seconds", f"painted {path} (1.5 MB)"]
    assert panorama_path(folder, paint=lambda: b"another", tell=told.append) == path
    assert (path.stat().st_size, len(told)) == (1_500_000, 2)
    assert os.listdir(folder) == [PANORAMA]


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
        f"(folder / {PANORAMA!r}).write_bytes(b'x')\n"
        "print(panorama_path() == folder / 'panorama-1.jpg', 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["True", "False"], "")
