from __future__ import annotations

import pytest

from kornia_ditf.loading import calibration


def test_a_calibration_comes_back_as_it_was_kept() -> None:
    assert calibration.load("model@1", 3, 260) is None
    calibration.save("model@1", 3, 260, (5, 17))
    calibration.save("model@1", 4, 260, ())
    assert calibration.load("model@1", 3, 260.0) == (5, 17)
    assert calibration.load("model@1", 4, 260) == ()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"massive_channels": 3}', '{"other": []}'])
def test_a_damaged_calibration_is_named_and_made_anew(
    content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = calibration.save("model@1", 3, 260, (5,))
    path.write_text(content)
    assert calibration.load("model@1", 3, 260) is None
    assert path.name in caplog.text
