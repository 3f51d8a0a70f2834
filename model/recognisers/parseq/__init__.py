"""PARSeq: "Scene Text Recognition with Permuted Autoregressive Sequence Models", Bautista and Atienza, ECCV 2022."""
