"""Synthetic word crops: a renderer of text images for training a scene-text recogniser.

Pure numpy and Pillow. `words` samples texts, `lettering` finds faces and lays out lines, `scene` places, paints and degrades
them; `render` draws a crop and knows where each glyph went, `dataset` writes shards of crops. `source`, which needs PyTorch, is
the renderer as a source of training batches.
"""

from model.data.shards import ShardError, Shards, load_shards
from model.synth.dataset import Recipe, ShardFormat, write_shards
from model.synth.lettering.fonts import Face, FontsNotFoundError, embedded_face, load_faces, split_faces
from model.synth.render import CropRenderer, RenderedCrop
from model.synth.words.corpus import CHARSET, MAX_LENGTH, Corpus

__all__ = [
    "CHARSET",
    "MAX_LENGTH",
    "Corpus",
    "CropRenderer",
    "Face",
    "FontsNotFoundError",
    "Recipe",
    "RenderedCrop",
    "ShardError",
    "ShardFormat",
    "Shards",
    "embedded_face",
    "load_faces",
    "load_shards",
    "split_faces",
    "write_shards",
]
