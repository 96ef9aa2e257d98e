"""Many images of one scene: pairs, tracks, and files for Structure-from-Motion tools."""
