"""Mission control: a simulated rover's image, telemetry and channels, in the public names of tailrace alone."""

from .app import create_app
from .image import UnusableImage, check_image, panorama_path
from .telemetry import Reading

__all__ = ["Reading", "UnusableImage", "check_image", "create_app", "panorama_path"]
