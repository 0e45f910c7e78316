"""Whatever can be made from the description, right or wrong: no fault of ours, and no answer that isn't described."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from pathlib import Path

import pytest
from door_client import Account, things

from harkara.ids import uuid7
from harkara.storage.storage import Storage

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)

#: A socket, and files.
ELSEWHERE = r"/feed$|^/docs"

#: The tool would sign up by itself; what it is to do is done with a key.
CONFIG = """
seed = {seed}
headers = {{ "X-API-Key" = "{key}" }}
warnings = false
# A busy machine is no fault of what is tested.
request-timeout = 60.0
suppress-health-check = ["too_slow"]

[checks.negative_data_rejection]
# An address too long to be read is refused before it is known what is wrong with the rest.
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, 431]

[auth]
auto-signup = false

# Its systematic phase has no end for conditions within conditions; the random one has.
[[operations]]
include-operation-id = ["campaign_create", "campaign_update", "segment_create", "segment_update"]
phases.coverage.enabled = false

[parameters]
{parameters}
"""


async def run(acme: Account, storage: Storage, directory: Path, seed: int, *options: str) -> None:
    """Run schemathesis with a key of this tenant, and with the ids of its things beside those of nothing."""
    made = await things(acme, storage)
    key = (await acme.post("/api-keys", {"name": "fuzz"}))["key"]
    parameters = "\n".join(f'"path.{name}" = {json.dumps([id_, str(uuid7())])}' for name, id_ in made.ids.items())
    text = CONFIG.format(seed=seed, key=key, parameters=parameters)
    (directory / "schemathesis.toml").write_text(text)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{acme.api.url}/openapi.json",
        "--no-color",
        "--continue-on-failure",
        f"--exclude-path-regex={ELSEWHERE}",
        f"--checks={','.join(CHECKS)}",
        *options,
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = "\n".join(line[:1000] for line in (await process.communicate())[0].decode().splitlines())
    assert process.returncode == 0, told[-20_000:]
    tested = re.search(r"Tested: (\d+)", told)
    assert tested is not None
    assert int(tested[1]) > 50, f"only {tested[1]} operations were tested\n{told[-3000:]}"


#: The requests of the bounded run are the same every time, so that a change is judged by what it changes. The long run
#: makes new ones, and what it finds gets a test of its own.
SEED = 2417865883


@pytest.mark.timeout(400)
async def test_what_the_description_allows_and_what_it_forbids_is_answered_as_it_says(
    acme: Account, storage: Storage, tmp_path: Path
) -> None:
    await run(acme, storage, tmp_path, SEED, "--phases=examples,fuzzing", "--max-examples=2", "--no-shrink")


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_the_same_at_length(acme: Account, storage: Storage, tmp_path: Path) -> None:
    seed = random.randrange(2**32)  # pytest-randomly's seed decides it, and the tool prints it
    await run(acme, storage, tmp_path, seed, "--phases=examples,coverage,fuzzing", "--max-examples=20")
