"""Files, caches, argument checks, images and provenance; nothing here knows the method."""
