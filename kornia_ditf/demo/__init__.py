"""The browser demo: click a point in one image, see where it lands in the other."""
