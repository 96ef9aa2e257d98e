"""`python -m kornia_ditf` is `kornia-ditf`."""

from __future__ import annotations

from kornia_ditf.cli import main

if __name__ == "__main__":
    main()
