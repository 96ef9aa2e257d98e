"""Calibration: finding block, timestep, longest side, treatment and noise draws by measuring.

`samples` says what is scored, `grid` which settings there are and what they cost, `measure` scores
them, `search` chooses, and `preset` is the result, which `store` keeps.
"""
