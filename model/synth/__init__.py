"""Synthetic word crops: a renderer of text images for training a scene-text recogniser.

Pure numpy and Pillow. ``fonts`` finds faces, ``corpus`` samples texts, ``render`` draws a crop and knows where each
glyph went (``layers``, ``placement``, ``painting`` and ``camera`` are its steps), ``dataset`` writes shards of crops
and reads them back.
"""

from model.synth.corpus import CHARSET, MAX_LENGTH, Corpus
from model.synth.dataset import Recipe, ShardError, ShardFormat, Shards, load_shards, write_shards
from model.synth.fonts import Face, FontsNotFoundError, embedded_face, load_faces, split_faces
from model.synth.render import Crop, CropRenderer

__all__ = [
    "CHARSET",
    "MAX_LENGTH",
    "Corpus",
    "Crop",
    "CropRenderer",
    "Face",
    "FontsNotFoundError",
    "Recipe",
    "ShardError",
    "ShardFormat",
    "Shards",
    "embedded_face",
    "load_faces",
    "load_shards",
    "split_faces",
    "write_shards",
]
