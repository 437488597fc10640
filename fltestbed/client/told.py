"""What a server says with its answers, checked before it is believed, kept or told again."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fltestbed.errors import ServerRefused
from fltestbed.text import printable

Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 62, strict=True)]


class ServerStamps(BaseModel):
    """The server's two stamps of an exchange, on its raw clock."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    server_receive_raw_ns: Nanoseconds
    server_send_raw_ns: Nanoseconds


class MessageFacts(ServerStamps):
    """What comes before a message."""

    measured: bool = True
    round: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    message_type: Annotated[str, Field(max_length=64)] | None = None


class ReplyEnd(ServerStamps):
    """What answers a reply."""

    server_end_raw_ns: Nanoseconds
    server_end_uncertainty_ns: Nanoseconds = 0


T = TypeVar("T", bound=BaseModel)


def read_told(kind: type[T], data: Mapping[str, Any]) -> T:
    """What a server has said, as far as it is known.

    Raises
    ------
    ServerRefused
        A value is missing or cannot be; the message names it.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        place = printable(".".join(map(str, problem["loc"])), 80)
        raise ServerRefused(
            f"the server's answer cannot be: {place}: {printable(problem['msg'], 120)}; does it run the same fltestbed?"
        ) from error
