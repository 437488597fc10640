"""What a server says before a client joins, checked before it is believed: it names files here, and sets times and sizes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fltestbed.client.told import read_told

Identifier = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
Text = Annotated[str, Field(max_length=300)]
Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Compression(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["none", "fp16", "int8"]
    zstd_level: Annotated[int, Field(ge=1, le=19)] | None


class _Hello(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    node_id: Identifier
    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$")]
    """Part of a file's name in the client's state."""
    run_id: Identifier
    first_run_id: Identifier
    versions: Annotated[dict[Text, Text], Field(max_length=64)]
    fab_id: Text
    fab_version: Text
    fab_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    clients: Annotated[int, Field(ge=1, le=100_000)]
    transport: Literal["bundle", "objects"]
    hold_s: Seconds
    keep_warm_s: Seconds
    deadline_s: Seconds
    patience_s: Seconds
    trainer_limit_s: Seconds
    congestion_control: Annotated[str, Field(pattern=r"^[a-z0-9_]{0,15}$")]
    measured: bool
    clock_interval_s: Annotated[float, Field(ge=0.1, le=1e6, allow_inf_nan=False)]
    probes: Annotated[dict[str, bool | Seconds], Field(max_length=64)]
    compression: _Compression
    largest_message_bytes: Annotated[int, Field(ge=1, le=1 << 40)]


def read_hello(data: dict[str, Any]) -> dict[str, Any]:
    """The same with every value checked.

    Raises
    ------
    ServerRefused
        A value is missing or cannot be; the message names it.
    """
    return read_told(_Hello, data).model_dump()
