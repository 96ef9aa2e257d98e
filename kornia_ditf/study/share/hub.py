"""Pushing a leaderboard and its bundles to a data set repository on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kornia_ditf.errors import HubError, InvalidArgumentError
from kornia_ditf.study.run.summary import SUMMARY
from kornia_ditf.study.share.leaderboard import FILES, Leaderboard
from kornia_ditf.study.store.records import RECORDS

_CARD = """---
pretty_name: Results of kornia_ditf studies
tags: [kornia_ditf, image-matching, leaderboard]
configs:
- config_name: records
  data_files: bundles/*/records.parquet
---

# Results of kornia_ditf studies

`index.html` is the leaderboard: download it and open it in a browser. `bundles/` holds what it is
made of, one folder for each study: `records.parquet` has a row for each pair and descriptor, and
`study.json` settings, versions, hardware and costs. `kornia-ditf study merge`, `compare` and
`report` take them.
"""


def push_leaderboard(leaderboard: Leaderboard, out: Path, repo: str) -> str:
    """Upload a leaderboard and its bundles; nothing in the repository is removed.

    Args:
        leaderboard: as it was written.
        out: the folder that it was written to.
        repo: `USER/NAME` of a data set repository; made where it is missing.

    Returns:
        the address of the commit.

    Raises:
        HubError: the Hub cannot be reached, or refuses.
        InvalidArgumentError: `repo` is not the name of a repository.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    files = [(name, out / name) for name in FILES] + _files(leaderboard.bundles)
    operations = [CommitOperationAdd(name, str(path)) for name, path in files]
    operations.append(CommitOperationAdd("README.md", _CARD.encode()))
    message = f"{len(leaderboard.bundles)} bundles of kornia_ditf studies"
    try:
        api = HfApi()
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        made = api.create_commit(repo, operations, commit_message=message, repo_type="dataset")
    except HFValidationError as error:
        raise InvalidArgumentError(f"--push must be USER/NAME, got {repo!r} ({error})") from error
    except OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set, so nothing is pushed; unset it") from error
    # The base of HfHubHTTPError is what the HTTP library raises where there is no network.
    except (OSError, HfHubHTTPError.__bases__[0]) as error:  # type: ignore[misc]
        raise HubError(
            f"cannot push to the data set {repo}: {error}; check the name, and run `hf auth "
            "login` with a token that may write"
        ) from error
    return str(made.commit_url)


def _files(bundles: Sequence[Path]) -> list[tuple[str, Path]]:
    names = [Path(name) for name in (RECORDS, SUMMARY)]
    return [
        (f"bundles/{bundle.name}/{name}", bundle / name)
        for bundle in bundles
        for each in names
        for name in (each.name, each.with_suffix(".sha256").name)
    ]
