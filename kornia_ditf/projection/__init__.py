"""Fixed projections of descriptors: a PCA learned from a folder of images, and kept in a file."""
