"""Files of weights: published, bundled and users' own, read without running anything from them."""
