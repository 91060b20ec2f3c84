"""From files of embeddings to a release: read in blocks, cut by key, index, calibrate, write."""
