from __future__ import annotations

import pytest
import torch

from kornia_ditf.backbones.inputs import full_batch, grid_positions, pack, pad_prompt
from kornia_ditf.errors import InvalidArgumentError


def test_a_value_is_repeated_for_every_latent() -> None:
    assert full_batch(torch.zeros(3, 4, 2, 2), 0.5).tolist() == [0.5] * 3
    assert full_batch(torch.zeros(1, 4, 2, 2), 7, torch.long).dtype == torch.long


def test_tokens_run_row_by_row_with_the_channel_first() -> None:
    latent = torch.arange(2 * 2 * 4).reshape(1, 2, 2, 4).float()
    tokens = pack(latent)
    assert tokens.shape == (1, 2, 8) and tokens.is_contiguous()
    assert tokens[0, 1].tolist() == [2, 3, 6, 7, 10, 11, 14, 15]
    assert torch.equal(pack(latent, 1)[0], latent.flatten(2)[0].T)


def test_positions_are_row_and_column_behind_an_axis_of_zeros() -> None:
    found = grid_positions(2, 3, device=torch.device("cpu"))
    assert found.shape == (6, 3) and found[4].tolist() == [0, 1, 1]


def test_a_padded_prompt_says_which_tokens_are_real() -> None:
    padded = pad_prompt({"prompt_embeds": [torch.ones(2, 3)], "pooled": torch.ones(1, 3)}, 4)
    assert padded["prompt_embeds"].sum() == 6 and padded["prompt_embeds"].shape == (1, 4, 3)
    assert padded["prompt_attention_mask"].tolist() == [[True, True, False, False]]
    assert padded["pooled"].shape == (1, 3)


def test_a_mask_of_the_pipeline_is_kept() -> None:
    mask = torch.tensor([[1, 0]])
    padded = pad_prompt({"prompt_embeds": torch.ones(1, 2, 3), "prompt_attention_mask": mask}, 3)
    assert padded["prompt_attention_mask"].tolist() == [[1, 0, 0]]


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="up to 2 tokens, got 3"):
        pad_prompt({"prompt_embeds": torch.ones(1, 3, 4)}, 2)
