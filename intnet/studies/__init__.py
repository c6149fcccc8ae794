"""The published studies: their protocols, and how their results are read. The programs in ``experiments/`` call these."""
