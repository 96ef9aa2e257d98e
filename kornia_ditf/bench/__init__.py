"""Ours and the peers side by side: `python -m kornia_ditf.bench`.

A case is one piece of work and those who do it. They take turns in one process, timed by the
processor's clock, so that what else the machine does touches all of them alike; read the ratios.
"""
