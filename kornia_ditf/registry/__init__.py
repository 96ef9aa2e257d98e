"""How names become descriptors: hooks, plugins, catalogue and look-up."""
