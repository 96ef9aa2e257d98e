"""A dense descriptor in the places where other libraries keep theirs, a file per library."""
